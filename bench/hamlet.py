"""The evaluation of the README's run, `gpt_balanced` on *Hamlet*: bench/results/hamlet.json.

python bench/hamlet.py [RUN]      after: make all CONFIG=gpt_balanced
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lib.run.metrics import training_seconds

RUN = Path("artifacts/runs/gpt_balanced-hamlet")
WEIGHTS = ("float32", "bfloat16", "int8", "int4")


def evaluate(run: Path, weights: str) -> dict[str, Any]:
    """The evaluation of the run with its weights in this format; of the whole weights with the extras."""
    extras = ["--with-counts", "--dynamic"] if weights == "float32" else []
    command = [sys.executable, "-m", "stages.evaluate", str(run), "--weights", f"published,{weights}", *extras]
    evaluation: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return evaluation


def results_of(manifest: dict[str, Any], evaluations: dict[str, dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What the README and docs/commands.md quote of a run, and where it comes from."""
    evaluation = evaluations["float32"]
    baselines = {
        name: {"loss": scores["loss"], "behind": scores["loss"] - evaluation["loss"]}  # nats/token
        | ({"standard_error": scores["lead"]["standard_error"]} if "lead" in scores else {})
        for name, scores in evaluation["baselines"].items()
    }
    return {
        "made": manifest["ended"],
        "versions": manifest["versions"],
        "parameters": manifest["metadata"]["parameters"],
        "published_step": manifest["metadata"]["published_step"],
        "tokens": evaluation["tokens"],
        "text_sha256": evaluation["text_sha256"],
        "loss": evaluation["loss"],
        "standard_error": evaluation["standard_error"]["loss"],
        "bits_per_byte": evaluation["bits_per_byte"],
        "baselines": baselines,
        "extras": {extra["label"]: {key: extra[key] for key in ("loss", "lead")} for extra in evaluation["extras"]},
        "seconds": round(seconds, 1),
        "weights": {name: {key: scores[key] for key in ("loss", "bits_per_byte")} for name, scores in evaluations.items()},
    }


def main(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    seconds = training_seconds(run)
    assert seconds is not None
    results = results_of(manifest, {weights: evaluate(run, weights) for weights in WEIGHTS}, seconds)
    target = Path(__file__).parent / "results" / "hamlet.json"
    target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RUN)
