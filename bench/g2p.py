"""How words are pronounced: the test words of `make g2p`, next to counts of graphones and published numbers.

python -m bench.g2p      after `make g2p`: results to bench/results/g2p.json
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.evaluate.translation import ErrorRates, read_translation_evaluation
from lib.run.folder import finished_manifest
from lib.run.metrics import training_seconds

RESULTS = Path(__file__).parent / "results" / "g2p.json"
RUN = Path("artifacts/runs/g2p-cmudict")

#: Error rates of the README of g2p-seq2seq (cmusphinx, 2018) for "CMUdict latest", without stress. Of the transformer it lists
#: 4,078 errors of 13,508.
PUBLISHED = (
    ("transformer, 3 layers, width 256 (g2p-seq2seq)", 0.302),
    ("n-grams of graphones (Phonetisaurus)", 0.3389),
)
PUBLISHED_ENTRIES = 13_508

_HEAD = ("", "parameters", "word errors", "95% interval", "phoneme errors", "entry errors", "minutes of training")


def row_of(name: str, errors: ErrorRates, parameters: int | None = None, seconds: float | None = None) -> dict[str, Any]:
    """The row of a model."""
    return {"name": name, "parameters": parameters, "seconds": seconds, **asdict(errors)}


def g2p_table(results: dict[str, Any]) -> str:
    """The run, the baseline and the published numbers as a table, the fewest wrong entries first."""
    rows: list[tuple[float, tuple[str, ...]]] = []
    for row in results["rows"]:
        parameters = f"{row['parameters']:,}" if row["parameters"] else ""
        minutes = f"{row['seconds'] / 60:.0f}" if row["seconds"] else ""
        interval = f"{row['interval'][0]:.1%} to {row['interval'][1]:.1%}"
        rates = (f"{row['word_error_rate']:.1%}", interval, f"{row['token_error_rate']:.1%}", f"{row['pair_error_rate']:.1%}")
        name = f"**{row['name']}**" if row["parameters"] else row["name"]
        rows.append((row["pair_error_rate"], (name, parameters, *rates, minutes)))
    rows += [(rate, (name, "", "", "", "", f"{rate:.1%}", "")) for name, rate in PUBLISHED]
    lines = [_HEAD, ("---", *("---:" for _ in _HEAD[1:])), *(cells for _, cells in sorted(rows, key=lambda row: row[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def wrong_lines(results: dict[str, Any]) -> str:
    """Some words that the run has wrong, its output and the pronunciations that are listed."""
    return "\n".join(
        f"{example['source']:14} {example['output']:32} not {' / '.join(example['targets'])}" for example in results["wrong"]
    )


def main() -> None:
    evaluation, manifest = read_translation_evaluation(RUN), finished_manifest(RUN)
    ours = row_of("makegpt (`make g2p`)", evaluation.errors, manifest.metadata["parameters"], training_seconds(RUN))
    results = {
        "split": evaluation.split,
        "sources": evaluation.sources,
        "pairs": evaluation.pairs,
        "loss": evaluation.loss,
        "loss_standard_error": evaluation.loss_standard_error,
        "rows": [ours, *(row_of(name, baseline.errors) for name, baseline in evaluation.baselines.items())],
        "significant": all(baseline.significant for baseline in evaluation.baselines.values()),
        "wrong": [asdict(example) for example in evaluation.wrong[:6]],
        "training": {name: manifest.parameters["train"][name] for name in ("max_steps", "batch_size")},
        "versions": manifest.versions,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(g2p_table(results))
    print(wrong_lines(results))


if __name__ == "__main__":
    main()
