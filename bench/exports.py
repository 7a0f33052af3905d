"""What llama.cpp computes from exported runs, and what fewer bits cost: bench/results/exports.json, docs/other_programs.md.

python bench/exports.py [RUNS]      after: make ladder, make all CONFIG=gpt_balanced, make llama-cpp

RUNS is the folder of the runs, artifacts/runs if none is named. The numbers are those of the certificates.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.artifact.io import read_json
from lib.artifact.manifest import read_manifest
from lib.artifact.provenance import software_versions, timestamp
from lib.config.params import load_params
from lib.data.downloads import fetch_input, find_input
from lib.gguf.convert import import_gguf
from lib.gguf.export import GGUF_FILE, export_gguf
from lib.gguf.reader import open_gguf
from lib.huggingface.parity import PARITY_FILE

RESULTS = Path(__file__).parent / "results" / "exports.json"
SMOLLM2 = "SmolLM2-135M, imported"
RUNS = {"`decoder`, Tiny Shakespeare": "decoder-tiny_shakespeare", "`gpt_balanced`, *Hamlet*": "gpt_balanced-hamlet"}
QUANTIZED = "decoder-tiny_shakespeare"
TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def export(run: Path, quantize: str) -> dict[str, Any]:
    """The certificate of `run` in the type `quantize`, without tokens, with what the tables need besides."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        folder = Path(scratch) / "exported"
        export_gguf(run, folder, quantize=quantize, started=timestamp())
        certificate: dict[str, Any] = read_json(folder / PARITY_FILE)
        with open_gguf(folder / GGUF_FILE) as file:
            architecture = file.values["general.architecture"]
        size = (folder / GGUF_FILE).stat().st_size
    assert certificate["llama_cpp"] is not None, certificate["not_checked"]
    kept = ("greedy_tokens", "largest_logit", "read_back", "llama_cpp", "model_sha256")
    return {"architecture": architecture, "bytes": size} | {key: certificate[key] for key in kept if key in certificate}


def import_smollm2(run: Path) -> None:
    data = Path(__file__).parent.parent / "data"
    list(fetch_input(find_input(load_params(), "smollm2"), data))
    import_gguf(next((data / "smollm2").glob("*.gguf")), run, started=timestamp())


def main(runs: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        import_smollm2(Path(scratch) / "smollm2")
        for name, run in {**{name: runs / folder for name, folder in RUNS.items()}, SMOLLM2: Path(scratch) / "smollm2"}.items():
            parameters = read_manifest(run, "run").metadata["parameters"]
            rows.append({"run": name, "parameters": parameters, **export(run, "f32")})
    quantized = {type: export(runs / QUANTIZED, type) for type in TYPES}
    results = {"made": timestamp(), "versions": software_versions(), "runs": rows, "quantized": quantized}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{certificates_table(rows)}\n\n{sizes_table(quantized)}")


def certificates_table(rows: list[dict[str, Any]]) -> str:
    """A row per run: how well llama.cpp agrees with it."""
    lines = [
        "| run | architecture | parameters | texts with equal ids | largest logit | largest difference | greedy tokens that agree |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        theirs = row["llama_cpp"]
        cells = [
            row["run"],
            f"`{row['architecture']}`",
            f"{row['parameters']:,}",
            f"{theirs['texts'] - len(theirs['texts_with_other_ids'])} of {theirs['texts']}",
            f"{row['largest_logit']:.1f}",
            f"{theirs['largest_difference']:.2g}".replace("e-05", "·10⁻⁵"),
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
