"""What tells spam from other messages: the test messages of `make spam` and of its small twin, next to counts of words.

python bench/classes.py      after `make spam` and `make spam CONFIG=spam_small`: results to bench/results/classes.json
"""

import json
from pathlib import Path
from typing import Any

from lib.evaluate.classification import ClassEvaluation, read_class_evaluation
from lib.run.folder import finished_manifest
from lib.run.metrics import training_seconds

RESULTS = Path(__file__).parent / "results" / "classes.json"
RUNS = ("spam-sms_spam", "spam_small-sms_spam")

#: The name of a row in the JSON -> in the table.
NAMES = {
    "spam-sms_spam": "**SmolLM2, last block** (`make spam`)",
    "spam_small-sms_spam": "**random weights, bytes** (`make spam CONFIG=spam_small`)",
}

#: Test accuracies that others published for the same 300 messages (Raschka, LLMs-from-scratch,
#: ch06/02_bonus_additional-experiments and ch06/01_main-chapter-code).
PUBLISHED = (
    ("GPT-2 small, last block (Raschka 2024)", 0.9567),
    ("GPT-2 small, LoRA (Raschka)", 0.9667),
    ("GPT-2 small from random weights, all layers (Raschka)", 0.9367),
)
_HEAD = ("", "parameters", "test accuracy", "95% interval", "spam: precision", "spam: recall", "minutes of training")


def row_of(name: str, evaluation: ClassEvaluation, parameters: int, seconds: float | None) -> dict[str, Any]:
    """The row of a run."""
    spam = evaluation.scores["spam"]
    return {
        "name": name,
        "parameters": parameters,
        "accuracy": evaluation.accuracy,
        "interval": evaluation.interval,
        "confusion": evaluation.confusion,
        "precision": spam.precision,
        "recall": spam.recall,
        "seconds": seconds,
    }


def classes_table(results: dict[str, Any]) -> str:
    """The runs, the baselines and the published numbers as a table, the best first."""
    rows: list[tuple[float, tuple[str, ...]]] = []
    for row in results["rows"]:
        scores = [f"{row[score]:.2%}" if row.get(score) is not None else "" for score in ("precision", "recall")]
        parameters = f"{row['parameters']:,}" if "parameters" in row else ""
        minutes = f"{row['seconds'] / 60:.1f}" if row.get("seconds") else ""
        interval = f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}"
        name = NAMES.get(row["name"], row["name"])
        rows.append((row["accuracy"], (name, parameters, f"{row['accuracy']:.2%}", interval, *scores, minutes)))
    rows += [(accuracy, (name, "", f"{accuracy:.2%}", "", "", "", "")) for name, accuracy in PUBLISHED]
    lines = [_HEAD, ("---", *("---:" for _ in _HEAD[1:])), *(cells for _, cells in sorted(rows, key=lambda row: -row[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    rows: list[dict[str, Any]] = []
    baselines: dict[str, dict[str, Any]] = {}
    for name in RUNS:
        run = Path("artifacts/runs") / name
        if not (run / "evaluation.json").is_file():
            continue
        evaluation = read_class_evaluation(run)
        rows.append(row_of(name, evaluation, finished_manifest(run).metadata["parameters"], training_seconds(run)))
        for baseline, score in evaluation.baselines.items():
            baselines[baseline] = {"name": baseline, "accuracy": score.accuracy, "interval": score.interval}
        seen, texts = evaluation.seen_texts, evaluation.texts
    results = {"texts": texts, "seen_texts": seen, "rows": [*rows, *baselines.values()]}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(classes_table(results))


if __name__ == "__main__":
    main()
