"""A run to its loss, perplexity and bits/byte, next to n-gram counts and compressors."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_json, write_text
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared import tokens
from stages.shared.command import Stage
from stages.shared.options import config_options, device_option, output_file_option, parameter, text_path
from stages.shared.progress import progress
from stages.shared.streams import say
from stages.shared.terminal import colored
from stages.shared.weights import Weights, weights_option

if TYPE_CHECKING:
    from lib.evaluate.evaluation import PairedComparison
    from lib.evaluate.results import Evaluation


@click.command("evaluate", cls=Stage)
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("dataset", type=click.Path(path_type=Path), required=False, metavar="[DATASET|-]")
@click.option("--text", "text_file", type=text_path, metavar="FILE|-", help="Evaluate on this text instead of a dataset.")
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN", help="Paired comparison with this run on the same tokens."
)
@click.option(
    "--per-token",
    is_flag=True,
    help="One line of JSON per token: logprob (nats), rank, the most likely tokens; on a terminal a table.",
)
@weights_option
@output_file_option
@device_option
@parameter("evaluate.split")
@parameter("evaluate.ngram_order")
@parameter("evaluate.overlap")
@parameter("evaluate.passages")
@config_options()
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
    """Evaluate the run folder RUN on a split of DATASET (default: its own), or on a text: one JSON object.

    Losses are in nats/token. The baselines are uniform guessing, n-grams counted on the training split, and compressors;
    a table of them goes to stderr. DATASET - reads a text from stdin.
    """
    if dataset is not None and text_file is not None:
        raise UsageError("give DATASET or --text, not both")
    if against is not None and per_token:
        raise UsageError("give --against or --per-token, not both")
    if str(dataset) == "-":
        dataset, text_file = None, "-"

    from lib.artifact.record import to_json
    from lib.data.dataset import Dataset
    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.evaluate.baselines import default_baselines
    from lib.evaluate.comparison import comparison_legend, comparison_table, evaluation_rows
    from lib.evaluate.evaluation import compare_models, evaluate, evaluation_parameters, score_tokens
    from lib.evaluate.probes import default_probes
    from lib.evaluate.results import EvaluatedWeights
    from lib.evaluate.span import dataset_span, seen_in_training, why_no_dataset
    from lib.generate.quantize import InferenceModel
    from lib.run.folder import dataset_folder, load_run
    from stages.shared.reading import read_text_span

    keep_freed_memory()
    device = choose_device(device_name)
    models = [load_run(run, device, weights.saved) for run in (folder, against) if run is not None]
    trained = models[0]
    if weights.format != "float32":
        inference = [InferenceModel(run.model, weights.format) for run in models]
        models = [replace(run, model=model) for run, model in zip(models, inference, strict=True)]
        trained = models[0]
        if notice := inference[0].kernel_notice():
            say(notice)
    if text_file is not None:
        span = read_text_span(text_file, folder, trained, config.tokenize.errors)
        if span.training is None and (reason := why_no_dataset(folder)):
            say(f"no n-gram baselines: {reason}")
    else:
        span = dataset_span(folder, trained, Dataset(dataset or dataset_folder(folder)), config.evaluate.split)
        if notice := seen_in_training(folder, span):
            say(notice)
    file = None if output == STDOUT else output
    if per_token:
        _write_tokens(score_tokens(trained, span, device), file)
        return
    result: PairedComparison | Evaluation
    used = EvaluatedWeights(*weights)
    if against is not None:
        with progress(2 * span.predicted, "tokens") as bar:
            result = replace(compare_models(trained, models[1], span, device, bar.advance), weights=used)
            bar.note(f"{result.verdict}: loss of the first minus the second {result.difference} nats/token (± standard error)")
    else:
        baselines = default_baselines(span, trained.tokenizer, config.evaluate.ngram_order)
        probes = default_probes(folder, span, config)
        with progress((1 + sum(probe.passes for probe in probes)) * span.predicted, "tokens") as bar:
            result = evaluate(trained, span, device, baselines=baselines, probes=probes, on_tokens=bar.advance)
            result = replace(result, weights=used, parameters=evaluation_parameters(config.evaluate, config.generate))
            rows = evaluation_rows(folder.resolve().name, result)
            for line in (*comparison_table(rows), *comparison_legend(rows), *result.notes()):
                bar.note(line)
    if file is None:
        click.echo(json.dumps(to_json(result), indent=2, allow_nan=False))
    else:
        write_json(file, to_json(result))


def _write_tokens(scores: Iterator[dict[str, Any]], file: Path | None) -> None:
    """A line per token: JSON, or on a terminal a table."""
    if file is None and sys.stdout.isatty():
        click.echo(tokens.HEAD)
        for token in scores:
            click.echo(tokens.line(token, colored(sys.stdout)))
        return
    lines = (json.dumps(token, ensure_ascii=False) + "\n" for token in scores)
    write_text(file or STDOUT, lines)


if __name__ == "__main__":
    main()
