"""What SmolLM2 learns from pairs of answers: bench/results/preferences.json, of docs/dpo.md.

python bench/preferences.py [RUN]      after: make preferences
"""

import json
import sys
from pathlib import Path
from typing import Any

from lib.run.metrics import read_metrics, training_seconds

RUN = Path("artifacts/runs/preferences-preferences")
RESULTS = Path(__file__).parent / "results" / "preferences.json"


def results_of(run: Path) -> dict[str, Any]:
    """What the page quotes of a run, and where it comes from."""
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    first, *_, last = read_metrics(run)
    return {
        "evaluation": json.loads((run / "evaluation.json").read_text(encoding="utf-8")),
        "validation": {"first": {"loss": first.val_loss, **first.values}, "last": {"loss": last.val_loss, **last.values}},
        "steps": last.step,
        "batch_size": manifest["parameters"]["train"]["batch_size"],
        "seconds": training_seconds(run),
        "versions": manifest["versions"],
    }


def preferences_table(results: dict[str, Any]) -> str:
    """The table of docs/dpo.md: the model and the reference on the pairs of the test split."""
    evaluation = results["evaluation"]
    lines = ["| | chosen more likely | ln p(chosen) | ln p(rejected) |", "|---|---:|---:|---:|"]
    for name, key in (("SmolLM2", "reference"), ("after DPO", "model")):
        scores = evaluation[key]
        cells = [_cell(scores["likelier"], 100, "%"), _cell(scores["chosen"]), _cell(scores["rejected"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(mean: dict[str, Any], scale: float = 1, unit: str = "") -> str:
    error = mean.get("standard_error")
    return f"{scale * mean['value']:.1f}{unit}" + (f" ± {scale * error:.1f}{unit}" if error is not None else "")


if __name__ == "__main__":
    results = results_of(Path(sys.argv[1]) if len(sys.argv) > 1 else RUN)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(preferences_table(results))
