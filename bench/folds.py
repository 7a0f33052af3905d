"""Ten-fold cross-validation on a text too short for one validation split: a row of bench/results/learning.json.

python bench/folds.py the_verdict gpt_balanced [SECTION.KEY=VALUE...]      after: make fetch DATASET=the_verdict

Each tenth of the text is predicted once, by a model and by counts of the other nine. The text is turned so that the tenth comes
last and after its own beginning; the old end and the old beginning meet, one false pair of tokens. The error covers the text:
the leads of the ten tenths vary with nine degrees of freedom.
"""

import math
import statistics
import sys
from pathlib import Path
from typing import Any

from bench.learning import read, save, stage
from lib.ngrams.counts import NGRAM_NAMES
from lib.run.metrics import training_seconds

FOLDS = 10


def turned(text: str, fold: int) -> str:
    """The text with its tenth number `fold` last, cut before blanks."""
    cuts = [0, *(text.index(" ", len(text) * k // FOLDS) for k in range(1, FOLDS)), len(text)]
    start, stop = cuts[fold], cuts[fold + 1]
    return text[stop:] + text[:start] + text[start:stop]


def evaluate_fold(text: str, fold: int, config: str, changes: list[str]) -> dict[str, Any]:
    """Train on nine tenths, if that is not done yet, and evaluate the model on the other one."""
    folder = Path("artifacts/learning") / f"folds-{config}" / str(fold)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("text.txt", "tokens", "dataset", "run", "evaluation.json")
    source, tokens, dataset, run, evaluation = (folder / name for name in names)
    rotated = turned(text, fold)
    if not source.is_file() or source.read_text(encoding="utf-8") != rotated:
        source.write_text(rotated, encoding="utf-8")
        stage("tokenize", str(source), "-o", str(tokens), "--config", config, "--quiet")
        stage("build_dataset", str(tokens), "-o", str(dataset), "--config", config, "--quiet")
    sets = [word for change in changes for word in ("--set", change)]
    stage("train", str(dataset), "-o", str(run), "--config", config, *sets, "--quiet")
    stage("evaluate", str(run), "-o", str(evaluation), "--quiet")
    scores: dict[str, Any] = read(evaluation)
    return scores | {"seconds": training_seconds(run), "manifest": read(run / "manifest.json")}


def summarize(config: str, folds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over all tokens, and the lead over the order of counts that is best over all tokens."""
    tokens = [fold["tokens"] for fold in folds]
    names = [name for name in NGRAM_NAMES.values() if all(name in fold["baselines"] for fold in folds)]

    def mean(losses: list[float]) -> float:
        return sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)

    counts = {name: mean([fold["baselines"][name]["loss"] for fold in folds]) for name in names}
    best = min(counts, key=lambda name: counts[name])
    leads = [fold["baselines"][best]["loss"] - fold["loss"] for fold in folds]
    return {
        "config": config,
        "folds": len(folds),
        "tokens": sum(tokens),
        "losses": [fold["loss"] for fold in folds],
        "loss": mean([fold["loss"] for fold in folds]),
        "counts": {"name": best, "loss": counts[best]},
        "lead": mean(leads),
        "standard_error": statistics.stdev(leads) / math.sqrt(len(leads)),
        "seconds": [round(fold["seconds"] or math.nan, 1) for fold in folds],
        "versions": folds[0]["manifest"]["versions"],
        "made": folds[-1]["manifest"]["ended"],
    }


def main(name: str, config: str, changes: list[str]) -> None:
    text = Path(f"data/{name}.txt").read_text(encoding="utf-8")
    row = summarize(config, [evaluate_fold(text, fold, config, changes) for fold in range(FOLDS)])
    save(name, row | {"changes": changes})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
