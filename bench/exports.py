"""What llama.cpp computes from exported runs, and what fewer bits cost: bench/results/exports.json, docs/other_programs.md.

python bench/exports.py [RUNS]      after: make ladder, make all CONFIG=gpt_balanced, make llama-cpp

RUNS is the folder of the runs, artifacts/runs if none is named. The numbers are those of the certificates.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lib.artifact.io import read_json
from lib.artifact.provenance import software_versions, timestamp
from lib.config.params import load_params
from lib.data.downloads import fetch_input, find_input
from lib.gguf.convert import GGUF_FILE, import_gguf
from lib.gguf.export import export_gguf
from lib.huggingface.parity import PARITY_FILE

RESULTS = Path(__file__).parent / "results" / "exports.json"
SMOLLM2 = "SmolLM2-135M, imported"
RUNS = {"`decoder`, Tiny Shakespeare": "decoder-tiny_shakespeare", "`gpt_balanced`, *Hamlet*": "gpt_balanced-hamlet"}
QUANTIZED = "decoder-tiny_shakespeare"
TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def export(run: Path, quantize: str) -> dict[str, Any]:
    """What the tables need of the export of `run` in the type `quantize`."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        folder = Path(scratch) / "exported"
        metadata = export_gguf(run, folder, quantize=quantize, started=timestamp()).metadata
        certificate: dict[str, Any] = read_json(folder / PARITY_FILE)
        size = (folder / GGUF_FILE).stat().st_size
    assert certificate["llama_cpp"] is not None, certificate["not_checked"]
    kept = {key: certificate[key] for key in ("model_sha256", "greedy_tokens", "largest_logit", "read_back", "llama_cpp")}
    return {"architecture": metadata["architecture"], "parameters": metadata["parameters"], "bytes": size} | kept


def import_smollm2(run: Path) -> None:
    data = Path(__file__).parent.parent / "data"
    list(fetch_input(find_input(load_params(), "smollm2"), data))
    import_gguf(next((data / "smollm2").glob("*.gguf")), run, started=timestamp())


def main(runs: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        smollm2 = Path(scratch) / "smollm2"
        import_smollm2(smollm2)
        places = {name: runs / folder for name, folder in RUNS.items()} | {SMOLLM2: smollm2}
        rows = [{"run": name, **export(run, "f32")} for name, run in places.items()]
    quantized = {type: export(runs / QUANTIZED, type) for type in TYPES}
    results = {"made": timestamp(), "versions": software_versions(), "runs": rows, "quantized": quantized}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{certificates_table(rows)}\n\n{sizes_table(quantized)}")


def certificates_table(rows: list[dict[str, Any]]) -> str:
    """A row per run: how well llama.cpp agrees with it."""
    head = ["run", "architecture", "parameters", "texts with equal ids"]
    head += ["largest logit", "largest difference", "greedy tokens that agree"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        theirs = row["llama_cpp"]
        cells = [
            row["run"],
            f"`{row['architecture']}`",
            f"{row['parameters']:,}",
            f"{theirs['texts'] - len(theirs['texts_with_other_ids'])} of {theirs['texts']}",
            f"{row['largest_logit']:.1f}",
            np.format_float_positional(theirs["largest_difference"], precision=2, fractional=False),
            f"{theirs['greedy_tokens_that_agree']} of {row['greedy_tokens']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sizes_table(quantized: dict[str, dict[str, Any]]) -> str:
    """A row per type: the file's size, and what the rounded weights cost."""
    lines = ["| `--quantize` | bytes | more bits/byte |", "|---|---:|---:|"]
    for type, row in quantized.items():
        more = row["read_back"].get("more_bits_per_byte")
        lines.append(f"| {type} | {row['bytes']:,} | {'' if more is None else f'{more:.4f}'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("artifacts/runs"))
