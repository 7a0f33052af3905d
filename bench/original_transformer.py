"""The original transformer's choices, each exchanged for GPT-2's: bench/results/original_transformer.json.

python bench/original_transformer.py      after: make build-dataset CONFIG=reverse_text DATASET=reverse

Of docs/original_transformer.md. Every variant is trained with three seeds below artifacts/original_transformer/.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "original_transformer.json"
DATASET = "artifacts/datasets/reverse.char.16"
SEEDS = (1, 2, 3)

#: How each variant differs from config `reverse_text`, by its name in the table.
VARIANTS: dict[str, tuple[str, ...]] = {
    "`reverse_text`": (),
    "`model.norm_position=pre`": ("model.norm_position=pre",),
    "`model.positions=learned`": ("model.positions=learned",),
    "`model.feed_forward=gelu`": ("model.feed_forward=gelu",),
    "`model.tie_weights=false`": ("model.tie_weights=false",),
    "`train.label_smoothing=0`": ("train.label_smoothing=0",),
    "`train.schedule=cosine`": ("train.schedule=cosine",),
    "`train.warmup_steps=0`": ("train.warmup_steps=0",),
}


def stage(name: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", f"stages.{name}", *words], check=True)


def trained(name: str, seed: int) -> Path:
    """The run of a variant and a seed, trained and evaluated."""
    run = Path("artifacts/original_transformer") / f"{list(VARIANTS).index(name)}-{seed}"
    changes = [word for change in (*VARIANTS[name], f"train.seed={seed}") for word in ("--set", change)]
    stage("train", DATASET, "-o", str(run), "--config", "reverse_text", *changes, "--quiet")
    stage("evaluate", str(run), "--split", "test", "-o", str(run / "evaluation.json"), "--quiet")
    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def results_of(name: str) -> dict[str, Any]:
    """Words of the test split that are wrong, of each seed, and the validation losses by step."""
    runs = [trained(name, seed) for seed in SEEDS]
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()] for run in runs]
    evaluations, manifest = [read(run / "evaluation.json") for run in runs], read(runs[0] / "manifest.json")
    return {
        "seeds": list(SEEDS),
        "parameters": manifest["metadata"]["parameters"],
        "words": evaluations[0]["sources"],
        "word_error_rates": [evaluation["errors"]["word_error_rate"] for evaluation in evaluations],
        "losses": [{line["step"]: line["val_loss"] for line in run if line["val_loss"] is not None} for run in lines],
        "versions": manifest["versions"],
    }


def original_table(results: dict[str, Any]) -> str:
    """The table of the page: validation losses by step and the wrong words at the end, means of the seeds."""
    steps = list(next(iter(results.values()))["losses"][0])[1:]
    lines = [f"| | {' | '.join(f'step {step}' for step in steps)} | words wrong |", "|---|" + "---:|" * (len(steps) + 1)]
    for name, row in results.items():
        losses = " | ".join(f"{statistics.mean(losses[step] for losses in row['losses']):.3f}" for step in steps)
        wrong = [round(rate * row["words"]) for rate in row["word_error_rates"]]
        lines.append(f"| {name} | {losses} | {', '.join(map(str, wrong))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    results = {name: results_of(name) for name in VARIANTS}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(original_table(read(RESULTS)))
