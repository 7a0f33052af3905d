"""Tokens/s with a draft model that proposes, next to the model alone: bench/results/speculative.json.

python bench/speculative.py MODEL DRAFT [ROUNDS]      two run folders with the same tokens

Of docs/speculative.md. The ways take turns; a ratio is the median of the ratios within a round.
"""

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import torch

from lib.api import Model
from lib.artifact.manifest import read_manifest
from lib.artifact.provenance import software_versions, timestamp
from lib.config.params import load_params, resolve_config
from lib.generate.request import Request, stream_text
from lib.generate.speculative import Speculation, stream_speculatively

RESULTS = Path(__file__).parent / "results" / "speculative.json"
PROMPTS = ("HAMLET\n", "The king", "To be, or not to be")
TOKENS = 120
AHEAD = (1, 2, 4, 8)
TEMPERATURES = (0.0, 0.8)


def requests(model: Model, temperature: float, seed: int) -> Iterator[Request]:
    """One request per prompt."""
    sampling = resolve_config(load_params()).generate
    config = replace(sampling, max_new_tokens=TOKENS, temperature=temperature, seed=seed)
    for prompt in PROMPTS:
        yield Request(model.tokenizer, model.encode_prompt(prompt), config, logprobs=False)


def timed(model: Model, draft: Model | None, temperature: float, seed: int, ahead: int) -> tuple[float, Speculation]:
    """The seconds that all prompts took, and what became of the proposals."""
    counted, cpu = Speculation(), torch.device("cpu")
    start = time.perf_counter()
    texts = requests(model, temperature, seed)
    if draft is None:
        pieces = stream_text(model.network, texts, cpu, batch_size=1)
    else:
        pieces = stream_speculatively(model.network, draft.network, texts, cpu, ahead=ahead, counted=counted)
    for _ in pieces:
        pass
    return time.perf_counter() - start, counted


def measure(model: Model, draft: Model, temperature: float, rounds: int) -> dict[str, Any]:
    """Tokens/s alone and by how many are proposed, the ratios, and how many proposals were accepted."""
    seconds: dict[int, list[float]] = {ahead: [] for ahead in (0, *AHEAD)}
    counts = {ahead: Speculation() for ahead in AHEAD}
    for seed in range(rounds + 1):  # the first round warms up
        for ahead in seconds:
            spent, counted = timed(model, draft if ahead else None, temperature, seed, ahead)
            if seed:
                seconds[ahead].append(spent)
                if ahead:
                    counts[ahead].proposed += counted.proposed
                    counts[ahead].accepted += counted.accepted
    written = TOKENS * len(PROMPTS)
    return {
        "alone": {"tokens_per_second": written / statistics.median(seconds[0])},
        "ahead": {
            str(ahead): {
                "tokens_per_second": written / statistics.median(seconds[ahead]),
                "ratio": statistics.median(a / b for a, b in zip(seconds[0], seconds[ahead], strict=True)),
                "accepted": counts[ahead].accepted / counts[ahead].proposed,
            }
            for ahead in AHEAD
        },
    }


def speculative_table(results: dict[str, Any]) -> str:
    """A row per kind of weights and temperature: tokens/s alone, and by proposals the speed-up and how many were accepted."""
    counts = next(iter(results["rows"].values()))["ahead"]
    lines = ["| | alone, tokens/s | " + " | ".join(f"n = {n}" for n in counts) + " |", "|---|" + "---:|" * (1 + len(counts))]
    for name, row in results["rows"].items():
        cells = [f"{ahead['ratio']:.2f} ({ahead['accepted']:.0%})" for ahead in row["ahead"].values()]
        lines.append(f"| {name} | {row['alone']['tokens_per_second']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(model_folder: Path, draft_folder: Path, rounds: int) -> None:
    rows = {}
    for weights in ("float32", "int8"):
        model, draft = (Model.from_run(folder, weights=weights) for folder in (model_folder, draft_folder))
        for temperature in TEMPERATURES:
            rows[f"{weights}, temperature {temperature:g}"] = measure(model, draft, temperature, rounds)
    names = {"model": model_folder.name, "draft": draft_folder.name}
    folders = {"model": model_folder, "draft": draft_folder}
    parameters = {name: read_manifest(folder, "run").metadata["parameters"] for name, folder in folders.items()}
    results = {"made": timestamp(), "versions": software_versions(), "rounds": rounds, **names, "parameters": parameters}
    RESULTS.write_text(json.dumps(results | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 5)
