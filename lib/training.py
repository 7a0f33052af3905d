"""A whole training in a run folder: begin or resume, step, validate, log, save, publish.

`train` is a generator: it yields what happens and prints nothing.
"""

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

from lib import artifact, checkpoint, model, provenance
from lib import device as devices
from lib.config import MEANT, WITHOUT_EFFECT, ModelConfig, TrainConfig
from lib.dataset import Dataset
from lib.errors import UsageError
from lib.run import DIVERGED, LAST, METRICS, TIMINGS, RunFolder, State
from lib.tokenizer import Tokenizer
from lib.trainer import Diverged, Record, Trainer


@dataclass(frozen=True)
class Notice:
    """Something worth saying that is not a step."""

    text: str


@dataclass(frozen=True)
class Begun:
    """Steps are about to be done, the first of them after `step`."""

    step: int


@dataclass(frozen=True)
class Stopped:
    """The training was asked to stop; the state after `step` is on the disk."""

    step: int


Event = Notice | Begun | Record | Stopped


def fit_vocabulary(config: ModelConfig, made: Tokenizer) -> ModelConfig:
    """The model's configuration with the tokenizer's vocabulary size; UsageError where another one was asked for."""
    if config.vocab_size not in (None, made.vocab_size):
        raise UsageError(
            f"model.vocab_size={config.vocab_size}, but the dataset's {made.kind} tokenizer has {made.vocab_size} tokens; "
            "leave it null"
        )
    return replace(config, vocab_size=made.vocab_size)


def train(
    folder: Path,
    dataset: Dataset,
    model_config: ModelConfig,
    train_config: TrainConfig,
    device: torch.device,
    *,
    resume: bool,
    started: str,
    stop_asked: Callable[[], bool],
) -> Iterator[Event]:
    """Train in the run folder `folder` until it holds model.safetensors, or until `stop_asked`.

    With `resume`, a finished run is left as it is and an unfinished one goes on, where parameters and dataset
    are the same; otherwise the training begins anew. Raises Diverged on a loss that is not finite.
    """
    made = dataset.tokens.load_tokenizer()
    model_config = fit_vocabulary(model_config, made)
    dataset.check_context(model_config.context_length)
    parameters = {"model": asdict(model_config), "train": asdict(train_config)}
    facts = {"model": parameters["model"], "dataset": dataset.identity(), "tokenizer": made.identity()}
    run = RunFolder(folder)
    with run.locked():
        manifest = run.begun() if resume else None
        if manifest and (difference := _first_difference(manifest, parameters, facts)):
            yield Notice(f"{folder} was made with other parameters ({difference}); beginning anew")
            manifest = None
        elif manifest and run.finished():
            yield Notice(f"{folder} is finished already with these parameters; nothing to do")
            return
        state = run.load_state() if manifest else None
        if state:
            yield Notice(f"going on after step {state.step} of {train_config.max_steps}")
            devices.use_threads(state.threads)  # sums depend on them in their last bits
            if state.device != str(device):
                yield Notice(f"the steps so far were done on {state.device}, not {device}; last bits may differ")
        # the trainer first: a model that does not fit into memory must not cost the run that is there
        trainer = Trainer(_starting_model(run, state, model_config, train_config).to(device), dataset, train_config, device)
        if state:
            trainer.restore(state.step, checkpoint.load(run.folder / LAST / state.moments)[0])
        if manifest is None or state is None:  # a training killed before its first state left nothing to go on with
            manifest = _manifest(folder, trainer, parameters, facts, started)
            run.begin(manifest, parameters, made)
        (folder / DIVERGED).unlink(missing_ok=True)
        try:
            yield from _session(run, state, manifest, trainer, facts, stop_asked)
        except Diverged as error:
            artifact.write_json(folder / DIVERGED, error.facts)
            raise Diverged(f"{error}; {folder / DIVERGED} tells all about it", error.facts) from None


def _manifest(
    folder: Path, trainer: Trainer, parameters: dict[str, Any], facts: dict[str, Any], started: str
) -> artifact.Manifest:
    """The manifest of a training that begins; its outputs are filled in when it ends."""
    found = {"dataset": facts["dataset"], "tokenizer": facts["tokenizer"], "parameters": model.count(trainer.model)}
    dataset = trainer.dataset
    return provenance.manifest(
        "run",
        "train",
        parameters=parameters,
        inputs={os.path.relpath(dataset.folder.resolve(), folder.resolve()): {"identity": dataset.identity()}},
        outputs={},
        facts=found,
        started=started,
        seed=trainer.config.seed,
        device=str(trainer.device),
        threads=devices.threads(),
    )


def _starting_model(
    run: RunFolder, state: State | None, model_config: ModelConfig, train_config: TrainConfig
) -> model.LanguageModel:
    """The model with fresh weights, or with those of `state`; drawn on the CPU, so that every device starts alike."""
    built = model.build(model_config)
    if state is None:
        built.initialise(torch.Generator().manual_seed(train_config.seed))
    else:
        path = run.folder / LAST / state.weights
        checkpoint.fill(built, checkpoint.load(path)[0], path)
    return built


def _session(
    run: RunFolder,
    state: State | None,
    manifest: artifact.Manifest,
    trainer: Trainer,
    facts: dict[str, Any],
    stop_asked: Callable[[], bool],
) -> Iterator[Event]:
    """Steps from `state` (None: from the first) to the last one, then publish."""
    config = trainer.config
    clock = _Clock(config.batch_size * trainer.dataset.context_length)
    best_step, best_val_loss = (state.best_step, state.best_val_loss) if state else (None, None)
    if state is None:
        first = Record(step=0, tokens=0, train_loss=None, val_loss=trainer.validate(), lr=None, grad_norm=None)
        run.append(METRICS, asdict(first))
        yield first
    yield Begun(trainer.step)
    while trainer.step < config.max_steps:
        with clock.step():
            record = trainer.train_step()
        step = record.step
        last = step == config.max_steps
        if validated := last or _due(step, config.eval_interval):
            val_loss = trainer.validate()
            record = replace(record, val_loss=val_loss)
            if best_val_loss is None or val_loss < best_val_loss:
                best_step, best_val_loss = step, val_loss
        logged = validated or _due(step, config.log_interval)
        if logged:
            run.append(METRICS, asdict(record))
        yield record
        stopping = stop_asked() and not last
        if validated or stopping or _due(step, config.checkpoint_interval):
            state = State(
                step=step,
                best_step=best_step,
                best_val_loss=best_val_loss,
                threads=devices.threads(),
                device=str(trainer.device),
            )
            run.save_state(state, dict(trainer.model.named_parameters()), trainer.moments(), facts | {"step": step})
        if logged or stopping:
            run.append(TIMINGS, clock.line(step))
        if stopping:
            yield Stopped(step)
            return
    assert state is not None  # the last step is always validated and saved
    run.publish(state, manifest)


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


class _Clock:
    """Time spent since the last line of timings.jsonl: in all, and in the training steps alone."""

    def __init__(self, tokens_a_step: int) -> None:
        self._tokens_a_step = tokens_a_step
        self._restart(time.perf_counter())

    def _restart(self, now: float) -> None:
        self._began, self._steps, self._stepping = now, 0, 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Count the block as one step."""
        began = time.perf_counter()
        yield
        self._steps += 1
        self._stepping += time.perf_counter() - began

    def line(self, step: int) -> dict[str, Any]:
        """A line of timings.jsonl after `step`, and begin the next one.

        `seconds` since the line before, or since the session began, validations and saving included; tokens a second
        in the steps alone; the most bytes of memory held so far.
        """
        now = time.perf_counter()
        seconds, rate = now - self._began, self._steps * self._tokens_a_step / self._stepping
        self._restart(now)
        memory = devices.peak_memory()
        return {"step": step, "seconds": round(seconds, 4), "tokens_per_second": round(rate, 1), "memory": memory}


def _first_difference(manifest: artifact.Manifest, parameters: dict[str, Any], facts: dict[str, Any]) -> str | None:
    """The first parameter or input in which a run's manifest differs from what is asked now, in words; None where none does."""
    for section, values in parameters.items():
        before = MEANT[section] | manifest["parameters"].get(section, {})
        for key, value in values.items():
            if before.get(key) != value and f"{section}.{key}" not in WITHOUT_EFFECT:
                return f"{section}.{key} was {before.get(key)}, now {value}"
    for key in ("dataset", "tokenizer"):
        if manifest["facts"].get(key) != facts[key]:
            return f"the {key} is another"
    return None
