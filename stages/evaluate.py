"""A run to its loss, perplexity and bits/byte, next to n-gram counts and compressors."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import click

from lib.artifact.files import STDOUT
from lib.artifact.io import write_text
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared import tokens
from stages.shared.command import Stage
from stages.shared.evaluations import report_classifier, report_preferences, report_tasks, report_translation, write_result
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
@click.argument("others", type=click.Path(path_type=Path), nargs=-1, metavar="[RUN...] [DATASET|-]")
@click.option("--text", "text_file", type=text_path, metavar="FILE|-", help="Evaluate on this text instead of a dataset.")
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN", help="Paired comparison with this run on the same tokens."
)
@click.option(
    "--per-token",
    is_flag=True,
    help="One line of JSON per token: logprob (nats), rank, the most likely tokens; on a terminal a table.",
)
@click.option("--ensemble", is_flag=True, help="Also score the mean of the probabilities of all RUNs.")
@click.option("--with-counts", is_flag=True, help="Also score half the model, half the highest order of the n-gram counts.")
@click.option(
    "--dynamic", is_flag=True, help="Also score the model while it keeps learning from the text (dynamic evaluation)."
)
@click.option(
    "--tasks",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help='Multiple choice instead: JSON Lines of {"prompt", "choices", "answer"}, or of BLiMP; may be repeated.',
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="With --tasks: the first N items of each file.")
@weights_option
@output_file_option
@device_option
@parameter("evaluate.split")
@parameter("evaluate.ngram_order")
@parameter("evaluate.overlap")
@parameter("evaluate.passages")
@parameter("evaluate.dynamic_lr")
@config_options()
def main(
    folder: Path,
    others: tuple[Path, ...],
    text_file: str | None,
    against: Path | None,
    per_token: bool,
    ensemble: bool,
    with_counts: bool,
    dynamic: bool,
    tasks: tuple[Path, ...],
    limit: int | None,
    weights: Weights,
    output: Path | None,
    device_name: str,
    config: Config,
) -> None:
    """Evaluate the run folder RUN on a split of DATASET (default: its own), or on a text: one JSON object.

    Losses are in nats/token. The baselines are uniform guessing, n-grams counted on the training split, and compressors;
    a table of them goes to stderr. DATASET - reads a text from stdin.

    Of a classifier, accuracy, confusion matrix, precision and recall, compared with classifiers that count words.
    Of pairs of answers, how often the chosen one is the more likely one, compared with the run that the training started from.
    Of parallel texts, how often the output of a source is wrong, compared with counts of graphones.
    With --tasks, how often the right choice is the most likely one, compared with n-gram counts of the run's training text.

    --ensemble, --with-counts and --dynamic add labeled scores in a separate section, `extras`. The other scores remain those
    of the (first) RUN alone.
    """
    members, dataset = _split_arguments(folder, others, ensemble)
    if dataset is not None and text_file is not None:
        raise UsageError("give DATASET or --text, not both")
    modes = {"--against": against is not None, "--per-token": per_token}
    modes |= {"--tasks": bool(tasks), "--ensemble": ensemble, "--with-counts": with_counts, "--dynamic": dynamic}
    first, second = ([name for name, given in modes.items() if given] + ["", ""])[:2]
    if second and first in ("--against", "--per-token", "--tasks"):
        raise UsageError(f"give {first} or {second}, not both")
    if tasks and (dataset is not None or text_file is not None):
        raise UsageError("--tasks has texts to score; leave out the dataset or --text")
    if limit is not None and not tasks:
        raise UsageError("--limit goes with --tasks")
    if dynamic and weights.format != "float32":
        raise UsageError(f"--dynamic trains the model, which needs float32 weights; leave out --weights {weights.format}")
    if str(dataset) == "-":
        dataset, text_file = None, "-"

    from lib.artifact.record import to_json
    from lib.data.dataset import Dataset
    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.evaluate.baselines import default_baselines
    from lib.evaluate.comparison import (
        comparison_legend,
        comparison_table,
        evaluation_extra_rows,
        evaluation_rows,
        extras_table,
    )
    from lib.evaluate.evaluation import compare_models, evaluate, evaluation_parameters, score_tokens
    from lib.evaluate.extras import LoadedRun, default_extras
    from lib.evaluate.probes import default_probes
    from lib.evaluate.results import EvaluatedWeights
    from lib.evaluate.span import AnswerSpan, dataset_span, seen_in_training, why_no_dataset
    from lib.generate.quantize import InferenceModel
    from lib.run.folder import dataset_folder, is_classifier, load_run, read_model_config
    from lib.run.metrics import training_seconds
    from stages.shared.reading import read_text_span

    keep_freed_memory()
    device = choose_device(device_name)
    if is_classifier(folder):
        if given := [name for name, given in (modes | {"--text": text_file is not None}).items() if given]:
            raise UsageError(f"{given[0]} is for models of texts, and {folder} is a classifier; leave it out")
        report_classifier(folder, dataset, weights, output, device, config)
        return
    if read_model_config(folder).has_encoder:
        if given := [name for name, given in (modes | {"--text": text_file is not None}).items() if given]:
            raise UsageError(f"{given[0]} is for models of texts, and {folder} is an encoder-decoder; leave it out")
        report_translation(folder, dataset, weights, output, device, config)
        return
    folders = [run for run in (folder, *members, against) if run is not None]
    models = [load_run(run, device, weights.saved) for run in folders]
    trained = models[0]
    if weights.format != "float32":
        inference = [InferenceModel(run.model, weights.format) for run in models]
        models = [replace(run, model=model) for run, model in zip(models, inference, strict=True)]
        trained = models[0]
        if notice := inference[0].kernel_notice():
            say(notice)
    if tasks:
        report_tasks(trained, folder, tasks, limit, weights, output, device, config)
        return
    if text_file is not None:
        span = read_text_span(text_file, folder, trained, config.tokenize.errors)
        if span.training is None and (reason := why_no_dataset(folder)):
            say(f"no n-gram baselines: {reason}")
    else:
        data = Dataset(dataset or dataset_folder(folder))
        if data.has_pairs:
            if first:
                raise UsageError(f"{first} is for texts, and {data.folder} has pairs of answers; leave it out")
            report_preferences(trained, folder, data, weights, output, device, config)
            return
        span = dataset_span(folder, trained, data, config.evaluate.split)
        if notice := seen_in_training(folder, span):
            say(notice)
        if dynamic and isinstance(span, AnswerSpan):
            raise UsageError("--dynamic learns from the text that it has read, and here each answer has its own; leave it out")
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
        runs = [LoadedRun(run.resolve().name, model, training_seconds(run)) for run, model in zip(folders, models, strict=True)]
        extras = default_extras(
            runs, span.training, config.evaluate, ensemble=ensemble, with_counts=with_counts, dynamic=dynamic
        )
        passes = 1 + sum(probe.passes for probe in probes) + sum(extra.passes for extra in extras)
        with progress(passes * span.predicted, "tokens") as bar:
            result = evaluate(trained, span, device, baselines=baselines, probes=probes, extras=extras, on_tokens=bar.advance)
            result = replace(result, weights=used, parameters=evaluation_parameters(config.evaluate, config.generate))
            name = runs[0].name
            rows, extra_rows = evaluation_rows(name, result), evaluation_extra_rows(name, result)
            for line in (*comparison_table(rows), *comparison_legend(rows), *result.notes(), *extras_table(extra_rows)):
                bar.note(line)
    write_result(to_json(result), output)


def _split_arguments(folder: Path, others: tuple[Path, ...], ensemble: bool) -> tuple[list[Path], Path | None]:
    """The RUNs after the first, `folder`, and the DATASET; without `ensemble` there is no second RUN."""
    from lib.artifact.manifest import is_artifact

    if not ensemble:
        if len(others) > 1:
            raise UsageError("evaluate takes one RUN and one DATASET; for several runs use --ensemble, or --against RUN")
        return [], next(iter(others), None)
    has_dataset = bool(others) and (str(others[-1]) == "-" or is_artifact(others[-1], "dataset"))
    members, dataset = (list(others[:-1]), others[-1]) if has_dataset else (list(others), None)
    if not members:
        raise UsageError(f"--ensemble needs two runs or more: evaluate {folder} RUN --ensemble")
    paths = [run.resolve() for run in (folder, *members)]
    if len(set(paths)) < len(paths):
        raise UsageError("--ensemble needs different runs; one of them is given twice")
    return members, dataset


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
