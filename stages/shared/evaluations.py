"""What `evaluate` does with a run that is not scored by the loss of a text: JSON to a file or stdout, a table to stderr."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Sequence

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_json
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared.progress import progress
from stages.shared.streams import say
from stages.shared.weights import Weights

if TYPE_CHECKING:
    from lib.data.dataset import Dataset
    from lib.run.folder import TrainedModel


def report_classifier(
    folder: Path, dataset: Path | None, weights: Weights, output: Path | None, device: Any, config: Config
) -> None:
    """A classifier on a split: JSON, and a table on stderr."""
    from lib.artifact.record import to_json
    from lib.data.dataset import Dataset
    from lib.evaluate.class_table import classification_table
    from lib.evaluate.classification import evaluate_classifier
    from lib.evaluate.results import EvaluatedWeights
    from lib.run.folder import dataset_folder, load_classifier

    if weights.format != "float32":
        raise UsageError(f"a classifier is evaluated in float32; leave out --weights {weights.format}")
    trained = load_classifier(folder, device, weights.saved)
    data, split = Dataset(dataset or dataset_folder(folder)), config.evaluate.split
    with progress(len(data.labeled.numbers(split)) if data.labeled else 0, "texts") as bar:
        result = evaluate_classifier(trained, folder, data, split, device, bar.advance)
    result = replace(result, weights=EvaluatedWeights(*weights), parameters={"evaluate": {"split": split}})
    _report(classification_table(folder.resolve().name, result), to_json(result), output)


def report_preferences(
    trained: "TrainedModel",
    folder: Path,
    dataset: "Dataset",
    weights: Weights,
    output: Path | None,
    device: Any,
    config: Config,
) -> None:
    """A model on pairs of answers: JSON, and a table on stderr."""
    from lib.artifact.record import to_json
    from lib.evaluate.preferences import evaluate_preferences, preference_lines
    from lib.evaluate.results import EvaluatedWeights

    if weights.format != "float32":
        raise UsageError(f"pairs of answers are compared in float32; leave out --weights {weights.format}")
    split = config.evaluate.split
    with progress(2 * len(dataset.pairs_of(split)), "pairs") as bar:
        result = evaluate_preferences(trained, folder, dataset, split, device, bar.advance)
    result = replace(result, weights=EvaluatedWeights(*weights))
    _report(preference_lines(folder.resolve().name, result), to_json(result), output)


def report_translation(
    folder: Path, dataset: Path | None, weights: Weights, output: Path | None, device: Any, config: Config
) -> None:
    """An encoder-decoder on parallel texts: JSON, and a table on stderr."""
    from lib.artifact.record import to_json
    from lib.data.dataset import Dataset
    from lib.evaluate.results import EvaluatedWeights
    from lib.evaluate.translation import References, evaluate_translation, parallel_texts, translation_table
    from lib.run.folder import dataset_folder, load_run

    if weights.format != "float32":
        raise UsageError(f"an encoder-decoder is evaluated in float32; leave out --weights {weights.format}")
    trained = load_run(folder, device, weights.saved, encoder_decoder=True)
    data, split = Dataset(dataset or dataset_folder(folder)), config.evaluate.split
    references = References(parallel_texts(folder, data), split)
    with progress(len(references.sources), "sources") as bar:
        result = evaluate_translation(trained, folder, data, references, device, bar.advance)
    result = replace(result, weights=EvaluatedWeights(*weights), parameters={"evaluate": {"split": split}})
    _report(translation_table(folder.resolve().name, result), to_json(result), output)


def report_tasks(
    trained: "TrainedModel",
    folder: Path,
    tasks: Sequence[Path],
    limit: int | None,
    weights: Weights,
    output: Path | None,
    device: Any,
    config: Config,
) -> None:
    """A model on multiple-choice tasks: JSON, and a table on stderr."""
    from lib.artifact.record import to_json
    from lib.evaluate.choices import choice_lines, evaluate_choices, read_items, task_files
    from lib.evaluate.results import EvaluatedWeights
    from lib.evaluate.span import own_dataset, why_no_dataset
    from lib.generate.request import encode_prompt
    from lib.run.folder import is_gpt2_release

    files = task_files(tasks)
    items = {path.stem: read_items(path, limit) for path in files}
    if len(items) < len(files):
        raise UsageError("two of the task files have the same name; rename one, since results are listed by name")
    training = own_dataset(folder)
    if training is None and (reason := why_no_dataset(folder)):
        say(f"no n-gram counts: {reason}")
    start = encode_prompt(trained.tokenizer, None, from_endoftext=is_gpt2_release(folder, trained.tokenizer)).ids
    with progress(sum(len(item.choices) for task in items.values() for item in task), "texts") as bar:
        result = evaluate_choices(
            trained,
            items,
            start,
            device,
            training=training,
            ngram_order=config.evaluate.ngram_order,
            weights=EvaluatedWeights(*weights),
            on_texts=bar.advance,
        )
    _report(choice_lines(folder.resolve().name, result), to_json(result), output)


def _report(lines: Iterable[str], result: Any, output: Path | None) -> None:
    """The `lines` of a table on stderr, and the `result` as JSON."""
    for line in lines:
        say(line)
    write_result(result, output)


def write_result(result: Any, output: Path | None) -> None:
    """One JSON object, to the file `output` or to stdout."""
    if output in (None, STDOUT):
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        write_json(output, result)
