"""The study of depth and width: which trainings it is made of, and what came of each.

`study.yaml` says what is asked. Every run lies in a folder that is named after its parameters, so that two experiments
share a run that both need, a stopped study continues where it was, and a short form stands next to the long one.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

import torch

from lib.artifact.io import write_json
from lib.artifact.manifest import MANIFEST
from lib.artifact.provenance import timestamp
from lib.artifact.record import to_json
from lib.config.params import find_params, load_params, resolve_config
from lib.config.schema import Config
from lib.config.strict_yaml import YamlTree, read_yaml
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.evaluate.baselines import default_baselines
from lib.evaluate.evaluation import compare_models, evaluate, evaluation_parameters
from lib.evaluate.probes import default_probes
from lib.evaluate.results import Evaluation, read_evaluation
from lib.evaluate.span import dataset_span
from lib.model.registry import build_model, count_operations
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, dataset_folder, finished_manifest, load_run, read_model_config
from lib.run.metrics import read_metrics, training_seconds
from lib.run.sessions import all_versions
from lib.study.results import PairedDifference, StudyEnvironment, StudyRow
from lib.train.events import Event
from lib.train.session import train_run

STUDY_FILE = Path(__file__).with_name("study.yaml")

_MOST = 1000  # runs of one line
_KEYS = {"dataset", "changes", "runs"}
_FLAGS = {"long_only", "paired"}


@dataclass(frozen=True)
class Planned:
    """One training of the study: a config, by name, with changes, over a dataset; and what a step and all the rest may take."""

    experiment: str
    dataset: str
    config_name: str
    changes: dict[str, str]
    step_seconds: float
    run_seconds: float
    long_only: bool = False
    paired: bool = False

    @property
    def name(self) -> str:
        """What it is trained with, in words: the name of its folder."""
        changes = {key.rpartition(".")[2]: self.changes[key] for key in sorted(self.changes) if key.startswith(_TRAINED_WITH)}
        return ",".join([self.config_name, *(f"{key}={value}" for key, value in changes.items())])

    def folder(self, artifacts: Path) -> Path:
        """Where its run is, or will be."""
        return artifacts / "study" / self.dataset / self.name

    def config(self) -> Config:
        """Its whole configuration."""
        return resolve_config(
            _tree(find_params().resolve()), self.config_name, [f"{key}={value}" for key, value in self.changes.items()]
        )


_TRAINED_WITH = ("model.", "train.")  # the sections a run depends on, next to its dataset


@cache
def _tree(path: Path) -> YamlTree:
    """What `params.yaml` says, read once for all trainings."""
    return load_params(path)


def load_study(path: Path | None = None) -> list[Planned]:
    """The trainings that the file `path` names, else this package's `study.yaml`, in its order."""
    path = path or STUDY_FILE
    try:
        tree = read_yaml(path.read_bytes().decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise MakegptError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    planned: list[Planned] = []
    for experiment, said in tree.items():
        if not isinstance(said, dict) or set(said) - _FLAGS != _KEYS or not isinstance(said["runs"], list):
            raise UsageError(f"{path}: {experiment} must have {', '.join(sorted(_KEYS))}, and runs must be a list")
        flags = {name: _flag(said.get(name, "false"), f"{path}: {experiment}: {name}") for name in _FLAGS}
        for line in said["runs"]:
            if not isinstance(line, dict):
                raise UsageError(
                    f"{path}: {experiment}: a run is a mapping with config, step_seconds, run_seconds and changes, not {line!r}"
                )
            where = f"{path}: {experiment}"
            expanded = _expanded(experiment, said["dataset"], _joined(said["changes"], where) | line, where)
            planned += [replace(trial, long_only=flags["long_only"], paired=flags["paired"]) for trial in expanded]
    return planned


def _flag(said: Any, where: str) -> bool:
    if said not in ("true", "false"):
        raise UsageError(f"{where} is true or false, not {said!r}")
    return bool(said == "true")


def _joined(changes: Any, where: str) -> dict[str, Any]:
    """Changes in one mapping or in a list of mappings, whose later parts add to the earlier."""
    joined: dict[str, Any] = {}
    for part in changes if isinstance(changes, list) else [changes]:
        if not isinstance(part, dict):
            raise UsageError(f"{where}: changes are a mapping of parameters, or a list of such mappings, not {part!r}")
        joined |= part
    return joined


def _expanded(experiment: str, dataset_name: str, line: dict[str, Any], where: str) -> Iterator[Planned]:
    """The runs that one line stands for: one for each way to choose from its brackets."""
    choices = {key: value if isinstance(value, list) else [value] for key, value in line.items()}
    if not all(isinstance(value, str) for value in (dataset_name, *chain(*choices.values()))):
        raise UsageError(f"{where}: a dataset, a config and each change is one value, or a list of values")
    if (count := math.prod(map(len, choices.values()))) > _MOST:
        raise UsageError(f"{where}: a line stands for {count} runs; {_MOST} at most are meant")
    for chosen in product(*choices.values()):
        trial = dict(zip(choices, chosen, strict=True))
        try:
            config_name, step, rest = trial.pop("config"), float(trial.pop("step_seconds")), float(trial.pop("run_seconds"))
        except (KeyError, ValueError):
            raise UsageError(f"{where}: each run says its config, its step_seconds and its run_seconds, numbers") from None
        if not (0 <= step < math.inf and 0 <= rest < math.inf):
            raise UsageError(f"{where}: step_seconds={step} and run_seconds={rest} must be 0 or more")
        yield Planned(experiment, dataset_name, config_name, trial, step, rest)


def plan_study(path: Path | None = None, budget: float | None = None) -> list[Planned]:
    """The trainings of the study in the file `path`, else of this project's; with a `budget`, a short form of them.

    The short form ends in so many seconds on two cores. It leaves out the experiments that are for the long form only and the
    third seed, and every training has so many fewer steps that all fit. Steps are counted by what was written down, not by a
    clock: the same budget gives the same bytes. UsageError for a budget that leaves no steps.
    """
    planned = load_study(path)
    if budget is None:
        return planned
    short = [trial for trial in planned if not trial.long_only and trial.config().train.seed <= _SHORT_SEEDS]
    rest = {(trial.dataset, trial.name): trial.run_seconds for trial in short}
    for_steps = _SAFE * budget - sum(rest.values())
    share = min(1.0, for_steps / estimate_seconds(short))
    if share <= 0:
        least = (sum(rest.values()) + _LEAST * estimate_seconds(short)) / _SAFE / 60
        raise UsageError(f"a budget of {budget:g} s is too short for {len(rest)} trainings; use {math.ceil(least)}m or more")
    return [_shortened(trial, share) for trial in short] if share < 1.0 else short


def estimate_seconds(planned: Iterable[Planned]) -> float:
    """What the steps of all trainings may take on two cores, each counted once."""
    return sum({(trial.dataset, trial.name): trial.step_seconds * trial.config().train.max_steps for trial in planned}.values())


_SHORT_SEEDS = 2  # the fewest that have a spread
_SAFE = 0.85  # of a budget; the rest is for slower machines
_LEAST = 0.02  # of the steps


def _shortened(trial: Planned, share: float) -> Planned:
    train = trial.config().train
    steps, warmup = (max(1, int(length * share)) for length in (train.max_steps, train.warmup_steps))
    at_the_end = "0"  # validated then alone
    fewer = {"train.max_steps": str(steps), "train.warmup_steps": str(warmup), "train.eval_interval": at_the_end}
    return replace(trial, changes=trial.changes | fewer)


def run_trial(
    trial: Planned, artifacts: Path, device: torch.device, stop_asked: Callable[[], bool]
) -> Iterator[Event | StudyRow]:
    """Train one run of the study, or continue with it, below `artifacts`; what happens on the way, and last what came of it."""
    config = trial.config()
    data = dataset_of(trial, config, artifacts)
    folder = trial.folder(artifacts)
    yield from train_run(
        folder, data, config.model, config.train, device, resume=True, started=timestamp(), stop_asked=stop_asked
    )
    if (folder / MODEL_FILE).is_file():
        yield _result(trial, folder, data, config, device)


def dataset_of(trial: Planned, config: Config, artifacts: Path) -> Dataset:
    """The dataset of a training, where make puts it below `artifacts`; MakegptError says how to make it."""
    folder = artifacts / "datasets" / f"{trial.dataset}.{config.tokenize.label}.{config.model.context_length}"
    if not (folder / MANIFEST).is_file():
        raise MakegptError(
            f"{folder} is missing; `make build-dataset CONFIG={trial.config_name} DATASET={trial.dataset}` makes it"
        )
    dataset = Dataset(folder)
    dataset.split(config.evaluate.split)  # refused now, not after the training
    return dataset


def _result(trial: Planned, folder: Path, data: Dataset, config: Config, device: torch.device) -> StudyRow:
    """What came of a finished run; it is evaluated if it was not."""
    manifest = finished_manifest(folder)
    metadata, sha256 = manifest.metadata, manifest.outputs[MODEL_FILE].sha256
    shape = build_model(read_model_config(folder), "meta")
    evaluation = _evaluation(folder, data, config)
    if evaluation is None:
        trained = load_run(folder, device)
        span = dataset_span(folder, trained, data, config.evaluate.split)
        baselines = default_baselines(span, trained.tokenizer, config.evaluate.ngram_order)
        evaluation = evaluate(trained, span, device, baselines=baselines, probes=default_probes(folder, span, config))
        evaluation = replace(evaluation, parameters=evaluation_parameters(config.evaluate, config.generate))
        write_json(folder / EVALUATION_FILE, to_json(evaluation))
    tables = sum(weight.numel() for name, weight in shape.named_parameters() if shape.is_embedding(name))
    train, step = config.train, config.train.batch_size * config.model.context_length
    return StudyRow(
        experiment=trial.experiment,
        config=trial.config_name,
        dataset=trial.dataset,
        split=config.evaluate.split,
        layers=config.model.n_layers,
        width=config.model.emb_dim,
        learning_rate=train.learning_rate,
        drop_rate=config.model.drop_rate,
        weight_decay=train.weight_decay,
        seed=train.seed,
        parameters=metadata["parameters"],
        in_blocks=metadata["parameters"] - tables,
        in_embeddings=tables,
        steps=train.max_steps,
        tokens=train.max_steps * step,
        operations=count_operations(shape) * train.max_steps * step,
        best_step=metadata["published_step"],
        curve=tuple((line.step, line.val_loss) for line in read_metrics(folder) if line.val_loss is not None),
        loss=evaluation.loss,
        bits_per_byte=evaluation.bits_per_byte,
        top_1=evaluation.top_1,
        standard_error=evaluation.standard_error,
        baselines={name: score.loss for name, score in evaluation.baselines.items()},
        memorization=evaluation.memorization,
        seconds=training_seconds(folder),
        threads=manifest.sessions[-1].threads,
        versions={name: all_versions(manifest).get(name) for name in _MADE_WITH},
        date=(manifest.ended or "")[:10],
        model_sha256=sha256,
    )


_MADE_WITH = ("python", "torch", "numpy", "processor", "commit", "dirty")


def _evaluation(folder: Path, data: Dataset, config: Config) -> Evaluation | None:
    """The evaluation in a run's folder; None if it is of other weights or data, or was made with other parameters."""
    try:
        evaluation = read_evaluation(folder)
    except MakegptError:
        return None
    expected = (data.identity(), config.evaluate.split, evaluation_parameters(config.evaluate, config.generate))
    return evaluation if (evaluation.dataset, evaluation.split, evaluation.parameters) == expected else None


def with_paired_differences(
    rows: Sequence[StudyRow], planned: Sequence[Planned], artifacts: Path, device: torch.device
) -> list[StudyRow]:
    """The rows, each of a `paired` experiment compared token by token with the best of that: `behind_best`."""
    compared = list(rows)
    for experiment in {trial.experiment: None for trial in planned if trial.paired}:
        places = [place for place, trial in enumerate(planned) if trial.experiment == experiment]
        best = min(places, key=lambda place: rows[place].loss)
        best_folder = planned[best].folder(artifacts)
        best_run = load_run(best_folder, device)
        span = dataset_span(best_folder, best_run, Dataset(dataset_folder(best_folder)), planned[best].config().evaluate.split)
        for place in places:
            if place != best:
                run = load_run(planned[place].folder(artifacts), device)
                lead = compare_models(run, best_run, span, device).difference
                difference = PairedDifference(lead.loss, lead.standard_error, lead.blocks, lead.significant)
                compared[place] = replace(rows[place], behind_best=difference)
    return compared


def environment(rows: Iterable[StudyRow]) -> StudyEnvironment:
    """When, where and by which code the trainings of `rows` were done."""
    rows = list(rows)
    versions = [row.versions for row in rows]
    return StudyEnvironment(
        dates=_distinct(row.date for row in rows),
        commits=_distinct(f"{version['commit']}{' and changes' if version['dirty'] else ''}" for version in versions),
        processors=_distinct(version["processor"] for version in versions if version["processor"]),
        versions={name: _distinct(version[name] for version in versions) for name in ("python", "torch", "numpy")},
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
