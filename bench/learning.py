"""What a config learns in its time, against counts: bench/results/learning.json, a row a text.

python bench/learning.py hamlet [SEEDS]      after: make build-dataset CONFIG=gpt_balanced   (one text a call; the others stay)

Each seed is trained from scratch below artifacts/learning/ and evaluated once. The error of a lead covers the text (blocks of
tokens, paired) and the seeds.
"""

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from lib.ngrams.counts import NGRAM_NAMES
from lib.run.metrics import training_seconds

RESULTS = Path(__file__).parent / "results" / "learning.json"

#: By the name of the row: the config and the dataset.
ROWS = {
    "hamlet": ("gpt_balanced", "hamlet.gpt2.256"),
    "hamlet_pointer": ("gpt_pointer", "hamlet.gpt2.256"),
    "moby_dick": ("gpt_novel", "moby_dick.gpt2.256"),
    "characters": ("decoder_best", "tiny_shakespeare.char.256"),
    "characters_fast": ("decoder_fast", "tiny_shakespeare.char.128"),
    "characters_ladder": ("decoder", "tiny_shakespeare.char.64"),
    "characters_lstm": ("lstm", "tiny_shakespeare.char.64"),
}


def stage(name: str, *words: str) -> None:
    subprocess.run([sys.executable, "-m", f"stages.{name}", *words], check=True)


def trained(row: str, seed: int) -> Path:
    """The run of a seed, trained and evaluated if it is not there."""
    config, dataset = ROWS[row]
    run = Path("artifacts/learning") / f"{row}-{seed}"
    stage("train", f"artifacts/datasets/{dataset}", "-o", str(run), "--config", config, "--seed", str(seed), "--quiet")
    evaluation = run / "evaluation.json"
    if not evaluation.is_file() or evaluation.stat().st_mtime < (run / "model.safetensors").stat().st_mtime:
        stage("evaluate", str(run), "--config", config, "-o", str(evaluation))
    return run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def summarize(row: str, runs: list[Path]) -> dict[str, Any]:
    """Means over the runs of a row, and the lead over the best counts, nats/token."""
    evaluations, manifests = ([read(run / name) for run in runs] for name in ("evaluation.json", "manifest.json"))
    counts = {name: score for name, score in evaluations[0]["baselines"].items() if name in NGRAM_NAMES.values()}
    best = min(counts, key=lambda name: counts[name]["loss"])
    leads = [evaluation["baselines"][best]["lead"] for evaluation in evaluations]
    spread = statistics.stdev([evaluation["loss"] for evaluation in evaluations]) if len(runs) > 1 else None
    errors = [max(lead["standard_error"] for lead in leads), (spread or 0.0) / math.sqrt(len(runs))]
    return {
        "config": ROWS[row][0],
        "seeds": [manifest["seed"] for manifest in manifests],
        "parameters": manifests[0]["metadata"]["parameters"],
        "tokens": evaluations[0]["tokens"],
        "losses": [evaluation["loss"] for evaluation in evaluations],
        "loss": statistics.mean(evaluation["loss"] for evaluation in evaluations),
        "sliding": statistics.mean(evaluation["sliding"]["loss"] for evaluation in evaluations),
        "counts": {"name": best, "loss": counts[best]["loss"]},
        "lead": -statistics.mean(lead["loss"] for lead in leads),
        "standard_error": math.hypot(*errors),
        "seconds": [round(training_seconds(run) or math.nan, 1) for run in runs],
        "versions": manifests[0]["versions"],
        "made": manifests[-1]["ended"],
    }


def save(row: str, results: dict[str, Any]) -> None:
    """Write one row's results to the JSON, and print them; the other rows stay."""
    rows = read(RESULTS) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(rows | {row: results}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results))


def main(row: str, seeds: int) -> None:
    save(row, summarize(row, [trained(row, seed) for seed in range(1, seeds + 1)]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3)
