"""What instruction tuning changes: the test answers of `make chat` and of its small twin, next to SmolLM2 and to n-grams.

python bench/chat.py      after `make chat` and `make chat CONFIG=chat_small`: results to bench/results/chat.json, the table to
                          docs/assistant.md
"""

import json
from pathlib import Path
from typing import Any

from lib.evaluate.results import Evaluation, read_evaluation
from lib.run.folder import finished_manifest, is_imported
from lib.run.metrics import training_seconds

RESULTS = Path(__file__).parent / "results" / "chat.json"
PAGE = Path(__file__).parent.parent / "docs" / "assistant.md"
RUNS = ("smollm2", "chat-instructions", "chat_small-instructions")

#: The name of a row in the JSON -> in the table.
NAMES = {
    "smollm2": "SmolLM2, as released",
    "chat-instructions": "**SmolLM2, tuned**",
    "chat_small-instructions": "**random weights, tuned**",
}
_HEAD = ("", "vocabulary", "nats/token", "bits/byte", "next token right", "exact match", "longest copy", "minutes")


def rows_of(name: str, evaluation: Evaluation, vocabulary: int, seconds: float | None) -> list[dict[str, Any]]:
    """The row of a run, and those of the n-gram baselines on the same tokens."""
    answers, error = evaluation.answers, evaluation.standard_error
    assert answers is not None
    row = {
        "name": name,
        "vocabulary": vocabulary,
        "loss": evaluation.loss,
        "loss_error": error.loss,
        "bits_per_byte": evaluation.bits_per_byte,
        "top_1": evaluation.top_1,
        "exact_match": answers.exact_match,
        "questions": answers.questions,
        "longest_run": answers.answers.longest_run,
        "samples": [vars(sample) for sample in answers.samples],
        "seconds": seconds,
    }
    counts = [
        {
            "name": f"{name} (counts)",
            "vocabulary": vocabulary,
            "loss": score.loss,
            "loss_error": score.standard_error.loss if score.standard_error else None,
            "bits_per_byte": score.bits_per_byte,
        }
        for name, score in evaluation.baselines.items()
        if name in ("unigram", "4-gram")
    ]
    return [row, *counts]


def chat_table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, those of one vocabulary together, the best first."""
    lines = [_HEAD, ("---", *("---:" for _ in _HEAD[1:]))]
    for row in sorted(rows, key=lambda row: (-row["vocabulary"], row["loss"])):
        error = "" if row["loss_error"] is None else f" ± {row['loss_error']:.3f}"
        scores = [f"{row['loss']:.3f}{error}", f"{row['bits_per_byte']:.3f}"]
        if "top_1" in row:
            seconds = "" if row["seconds"] is None else f"{row['seconds'] / 60:.1f}"
            matches = f"{row['exact_match']:.0%} of {row['questions']}"
            scores += [f"{row['top_1']:.1%}", matches, f"{row['longest_run']} tokens", seconds]
        else:
            scores += ["", "", "", ""]
        lines.append((NAMES.get(row["name"], row["name"]), f"{row['vocabulary']:,}", *scores))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for name in RUNS:
        run = Path("artifacts/runs") / name
        if not (run / "evaluation.json").is_file():
            continue
        vocabulary = json.loads((run / "config.json").read_text(encoding="utf-8"))["model"]["vocab_size"]
        seconds = None if is_imported(finished_manifest(run)) else training_seconds(run)
        for row in rows_of(name, read_evaluation(run), vocabulary, seconds):
            rows.setdefault((row["name"], vocabulary), row)
    before = chat_table(json.loads(RESULTS.read_text(encoding="utf-8"))["rows"])
    PAGE.write_text(PAGE.read_text(encoding="utf-8").replace(before, chat_table(list(rows.values()))), encoding="utf-8")
    RESULTS.write_text(json.dumps({"rows": list(rows.values())}, indent=2) + "\n", encoding="utf-8")
    print(chat_table(list(rows.values())))


if __name__ == "__main__":
    main()
