"""How words are pronounced: the test words of CMUdict, by `make g2p`, counts of graphones and in published numbers.

python -m bench.g2p      after `make g2p`: results to bench/results/g2p.json, and their section into docs/g2p.md.
                         After `make build-dataset CONFIG=g2p DATASET=cmudict` alone: the counts without a model
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib.artifact.provenance import software_versions
from lib.data.dataset import Dataset
from lib.evaluate.translation import GRAPHONES, ErrorRates, References, read_translation_evaluation
from lib.ngrams.alignment import Pair
from lib.ngrams.graphones import GraphoneModel
from lib.run.folder import finished_manifest
from lib.run.metrics import training_seconds

RESULTS = Path(__file__).parent / "results" / "g2p.json"
PAGE = Path(__file__).parent.parent / "docs" / "g2p.md"
RUN = Path("artifacts/runs/g2p-cmudict")
DATASET = Path("artifacts/datasets/cmudict.symbols.32")

#: Error rates of the README of g2p-seq2seq (CMUSphinx 2018) for the dictionary without stress.
PUBLISHED = (
    ("transformer, 3 layers, width 256 (g2p-seq2seq)", 0.302),
    ("n-grams of graphones (Phonetisaurus)", 0.3389),
)

_HEAD = ("test split", "parameters", "word errors", "95% interval", "phoneme errors", "entry errors", "minutes of training")


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
        rows.append((row["pair_error_rate"], (f"**{row['name']}**", parameters, *rates, minutes)))
    rows += [(rate, (name, "", "", "", "", f"{rate:.1%}", "")) for name, rate in PUBLISHED]
    lines = [_HEAD, ("---", *("---:" for _ in _HEAD[1:])), *(cells for _, cells in sorted(rows, key=lambda row: row[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def g2p_section(results: dict[str, Any]) -> str:
    """What the page says of the results."""
    parts = [g2p_table(results)]
    if training := results.get("training"):
        verdict = "is" if results["significant"] else "is not"
        parts.append(
            f"The model is one training of {training['max_steps']:,} steps of {training['batch_size']} pairs. Its loss on "
            f"these words is {results['loss']:.3f} ± {results['loss_standard_error']:.3f} nats/token. The difference between "
            f"its word errors and those of the counts {verdict} significant (McNemar 1947). Some words that it has wrong:"
        )
        wrong = [f"{row['source']:14} {row['output']:30} not {' / '.join(row['targets'])}" for row in results["wrong"]]
        parts.append("\n".join(["```", *wrong, "```"]))
    return "\n\n".join(parts)


def measure_run(run: Path) -> dict[str, Any]:
    """The results of a run that has been evaluated on the test split, and of the counts next to it."""
    evaluation, manifest = read_translation_evaluation(run), finished_manifest(run)
    if evaluation.split != "test":
        raise SystemExit(f"{run} was evaluated on the {evaluation.split} split; run `make g2p`")
    model = manifest.parameters["model"]
    name = f"encoder-decoder, {model['n_layers']} layers, width {model['emb_dim']}"
    ours = row_of(name, evaluation.errors, manifest.metadata["parameters"], training_seconds(run))
    return {
        "sources": evaluation.sources,
        "pairs": evaluation.pairs,
        "rows": [ours, *(row_of(name, baseline.errors) for name, baseline in evaluation.baselines.items())],
        "loss": evaluation.loss,
        "loss_standard_error": evaluation.loss_standard_error,
        "significant": all(baseline.significant for baseline in evaluation.baselines.values()),
        "wrong": [asdict(example) for example in evaluation.wrong[:6]],
        "training": {name: manifest.parameters["train"][name] for name in ("max_steps", "batch_size")},
        "versions": manifest.versions,
    }


def measure_counts(dataset: Path) -> dict[str, Any]:
    """The results of the counts alone."""
    texts = Dataset(dataset).parallel
    assert texts is not None
    references = References(texts, "test")
    training = [Pair(texts.source(number).tolist(), texts.target(number).tolist()) for number in texts.numbers("train")]
    errors = references.errors(GraphoneModel(training).predict(references.sources))
    return {
        "sources": len(references.sources),
        "pairs": len(texts.numbers("test")),
        "rows": [row_of(GRAPHONES, errors)],
        "versions": software_versions(),
    }


def main() -> None:
    results = measure_run(RUN) if (RUN / "evaluation.json").is_file() else measure_counts(DATASET)
    page = PAGE.read_text(encoding="utf-8")
    before = g2p_section(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.is_file() else "RESULTS"
    assert before in page
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page.replace(before, g2p_section(results)), encoding="utf-8")
    print(g2p_section(results))


if __name__ == "__main__":
    main()
