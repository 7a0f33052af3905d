"""What rewards do to a small model that adds two digits: bench/results/rewards.json, of docs/reward.md.

python bench/rewards.py [FOLDER]      a minute for each of three seeds

For each seed the model first learns 90 of the 100 sums from the right answers, for too short a time. Then it is rewarded: for
the right answer alone; for any answer in which the right one stands somewhere, with and without a KL term.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.run.metrics import read_metrics

RESULTS = Path(__file__).parent / "results" / "rewards.json"
SEEDS = (1, 2, 3)
KL_WEIGHT = 0.1

#: A reward and a KL weight, by the name of the training in the results.
TRAININGS = {
    "exact": ("exact", 0.04, 150),
    "contains": ("contains", 0.0, 80),
    "contains_kl": ("contains", KL_WEIGHT, 80),
}


def stage(name: str, *words: object) -> None:
    subprocess.run([sys.executable, "-m", f"stages.{name}", *map(str, words), "--quiet"], check=True)


def make_dataset(folder: Path) -> Path:
    """The dataset of the sums, made in `folder`."""
    stage("fetch", "sums")
    stage("tokenize", "--chat", "data/sums.jsonl", "-o", folder / "tokens", "--config", "exercises")
    stage("build_dataset", folder / "tokens", "-o", folder / "dataset", "--config", "exercises")
    return folder / "dataset"


def train(folder: Path, seed: int) -> dict[str, list[dict[str, Any]]]:
    """The curves of all trainings with this seed: a line for each step."""
    base = folder / f"sums-{seed}"
    stage("train", folder / "dataset", "-o", base, "--config", "exercises", "--seed", seed)
    curves = {}
    for name, (reward, kl_weight, steps) in TRAININGS.items():
        run = folder / f"{name}-{seed}"
        changes = [f"train.reward={reward}", f"train.kl_weight={kl_weight}", "train.eval_interval=0"]
        options = [word for change in changes for word in ("--set", change)]
        limits = ("--seed", seed, "--max-steps", steps)
        stage("train", folder / "dataset", "-o", run, "--init-from", base, "--config", "reward", *limits, *options)
        curves[name] = [{"step": line.step, **_rounded(line.values)} for line in read_metrics(run)]
    return curves


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def rewards_table(results: dict[str, Any]) -> str:
    """The table of docs/reward.md: means over the seeds, of the first and of the last ten steps."""
    rows = {"exact": "the right answer", "contains": "contains it", "contains_kl": "contains it"}
    lines = [
        "| reward | KL weight | reward at first | at last | right answers at first | at last | KL at last | tokens at last |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, words in rows.items():
        first, last = (_mean(results, name, part) for part in (slice(1, 11), slice(-10, None)))
        numbers = [first["reward"], last["reward"], first["exact"], last["exact"]]
        lines.append(
            f"| {words} | {TRAININGS[name][1]:g} | {' | '.join(f'{number:.2f}' for number in numbers)} "
            f"| {last['kl']:.1f} | {last['completions/mean_length']:.1f} |"
        )
    return "\n".join(lines)


def _mean(results: dict[str, Any], name: str, part: slice) -> dict[str, float]:
    """The means over all seeds and some steps."""
    lines = [line for curves in results["seeds"].values() for line in curves[name][part]]
    return {key: sum(line[key] for line in lines) / len(lines) for key in lines[-1] if not key.startswith("val_")}


def main(folder: Path) -> None:
    make_dataset(folder)
    results = {
        "kl_weight": KL_WEIGHT,
        "seeds": {str(seed): train(folder, seed) for seed in SEEDS},
        "versions": json.loads((folder / f"exact-{SEEDS[0]}" / "manifest.json").read_text(encoding="utf-8"))["versions"],
    }
    RESULTS.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
