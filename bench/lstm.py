"""A recurrent network next to a decoder as large: bench/results/lstm.json, of docs/lstm.md.

python bench/lstm.py      after: make evaluate CONFIG=lstm DATASET=tiny_shakespeare, and the same with CONFIG=decoder
"""

import json
from pathlib import Path
from typing import Any

from lib.run.metrics import training_seconds

RUNS = ("lstm", "decoder")
RESULTS = Path(__file__).parent / "results" / "lstm.json"


def results_of(run: Path) -> dict[str, Any]:
    """What the page quotes of a run, and where it comes from."""
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return {
        "parameters": manifest["metadata"]["parameters"],
        "steps": manifest["metadata"]["published_step"],
        "loss": evaluation["loss"],
        "standard_error": evaluation["standard_error"]["loss"],
        "sliding": evaluation["sliding"]["loss"],
        "positions": evaluation["loss_by_position"],
        "seconds": training_seconds(run),
        "versions": manifest["versions"],
    }


def lstm_table(results: dict[str, Any]) -> str:
    """The table of docs/lstm.md: both models, and their loss at some places of a window."""
    places = [(band["from"], band["to"]) for band in results["lstm"]["positions"]]
    heads = [str(first) if first == last else f"{first} to {last}" for first, last in places]
    lines = [
        f"| | parameters | nats/character | overlapping windows | {' | '.join(heads)} |",
        "|---|" + "---:|" * (3 + len(heads)),
    ]
    for name in RUNS:
        row = results[name]
        bands = " | ".join(f"{band['loss']:.2f}" for band in row["positions"])
        loss = f"{row['loss']:.3f} ± {row['standard_error']:.3f}"
        lines.append(f"| `{name}` | {row['parameters']:,} | {loss} | {row['sliding']:.3f} | {bands} |")
    return "\n".join(lines)


if __name__ == "__main__":
    results = {name: results_of(Path("artifacts/runs") / f"{name}-tiny_shakespeare") for name in RUNS}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(lstm_table(results))
