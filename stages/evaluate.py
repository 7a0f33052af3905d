"""A run to its loss, perplexity and bits/byte, beside counting and compressing."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterator

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_json, write_text
from lib.config.schema import Config
from lib.errors import UsageError
from stages import device_option, output_file_option, say, stage, text_path
from stages.shared import tokens
from stages.shared.progress import progress
from stages.shared.terminal import colored
from stages.shared.weights import Weights, weights_option


@stage("evaluate", evaluate=("split", "ngram_order", "overlap", "passages"))
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("dataset", type=click.Path(path_type=Path), required=False, metavar="[DATASET|-]")
@click.option("--text", "text_file", type=text_path, metavar="FILE|-", help="Evaluate on this text and not on a dataset.")
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN", help="Compare with this run on the same tokens, paired."
)
@click.option(
    "--per-token",
    is_flag=True,
    help="A line of JSON for each token: logprob (nats), rank, the likeliest; on a terminal a table.",
)
@weights_option
@output_file_option
@device_option
def main(
    folder: Path,
    dataset: Path | None,
    text_file: str | None,
    against: Path | None,
    per_token: bool,
    weights: Weights,
    output: Path | None,
    device_name: str,
    config: Config,
) -> None:
    """Evaluate the run folder RUN on a split of DATASET, its own where none is named, or on a text: one JSON object.

    Losses are in nats/token; guessing, n-grams counted on the training split and compressors stand beside the model. A - is
    a text on stdin.
    """
    if dataset is not None and text_file is not None:
        raise UsageError("give DATASET or --text, not both")
    if against is not None and per_token:
        raise UsageError("give --against or --per-token, not both")
    if str(dataset) == "-":
        dataset, text_file = None, "-"

    from lib.data.dataset import Dataset
    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.evaluate.evaluation import compare_runs, count_passes, evaluate_run, score_tokens
    from lib.evaluate.span import dataset_span, why_no_dataset
    from lib.generate.quantize import InferenceModel
    from lib.run.folder import dataset_folder, load_run
    from stages.shared.reading import read_stretch

    keep_freed_memory()
    chosen = choose_device(device_name)
    runs = [load_run(each, chosen, weights.saved) for each in (folder, against) if each is not None]
    trained = runs[0]
    if weights.format != "float32":
        models = [InferenceModel(run.model, weights.format) for run in runs]
        runs = [replace(run, model=model) for run, model in zip(runs, models, strict=True)]
        trained = runs[0]
        if notice := models[0].kernel_notice():
            say(notice)
    if text_file is not None:
        found = read_stretch(text_file, folder, trained, config.tokenize.errors)
        if found.training is None and (reason := why_no_dataset(folder)):
            say(f"nothing is counted on the training text: {reason}")
    else:
        data = Dataset(dataset or dataset_folder(folder))
        found = dataset_span(folder, trained, data, config.evaluate.split)
    file = None if output == STDOUT else output
    if per_token:
        _list(score_tokens(trained, found, chosen), file)
        return
    passes = len(runs) if against is not None else count_passes(config.evaluate)
    with progress(passes * found.predicted, "tokens") as shown:
        if against is not None:
            result = compare_runs(trained, runs[1], found, chosen, shown.advance, weights)
        else:
            settings = (config.evaluate, config.generate, chosen)
            result = evaluate_run(folder, trained, found, *settings, shown.advance, weights)
        shown.note(result["verdict"])
    if file is None:
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        write_json(file, result)


def _list(found: Iterator[dict[str, Any]], file: Path | None) -> None:
    """A line a token: JSON, or on a terminal a table."""
    if file is None and sys.stdout.isatty():
        click.echo(tokens.HEAD)
        for token in found:
            click.echo(tokens.line(token, colored(sys.stdout)))
        return
    lines = (json.dumps(token, ensure_ascii=False) + "\n" for token in found)
    write_text(file or STDOUT, lines)


if __name__ == "__main__":
    main()
