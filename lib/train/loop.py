"""A whole training in a run folder: begin or resume, step, validate, log, save, publish.

`train` is a generator: it yields what happens and prints nothing.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Iterator

import torch
from torch import Tensor

from lib.artifact.io import write_json
from lib.artifact.manifest import Manifest
from lib.artifact.provenance import new_manifest, timestamp
from lib.artifact.tensors import load_tensors
from lib.config.schema import ModelConfig, TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS, ProcessGroup
from lib.device.hardware import set_thread_count, thread_count
from lib.device.precision import LossScale
from lib.errors import UsageError
from lib.model.registry import count_parameters
from lib.run.folder import DIVERGED_FILE, METRICS_FILE, TIMINGS_FILE
from lib.run.samples import SAMPLES_FILE
from lib.run.sessions import begin_session, end_session, latest_session, session_differences, sessions_in
from lib.run.state import CHECKPOINT_FOLDER, SavedState
from lib.tokenizer.base import Tokenizer
from lib.train.initial_weights import initial_model, resolve_init_from
from lib.train.resume import ResumeState, inspect_run_folder, manifest_inputs
from lib.train.run_folder import RunFolder
from lib.train.samples import Sampler
from lib.train.throughput import ThroughputMeter
from lib.train.trainer import Diverged, StepMetrics, Trainer


@dataclass(frozen=True)
class Notice:
    """Something worth saying that is not a step."""

    text: str


@dataclass(frozen=True)
class Logged:
    """A line of metrics.jsonl and one of timings.jsonl were written; `seconds_left` is a guess."""

    record: StepMetrics
    timing: dict[str, Any]
    seconds_left: float


@dataclass(frozen=True)
class Stopped:
    """The training was asked to stop; the state after `step` is on the disk."""

    step: int


Event = Notice | StepMetrics | Logged | Stopped


def fit_vocabulary(config: ModelConfig, made: Tokenizer) -> ModelConfig:
    """The model's configuration with the tokenizer's vocabulary size; UsageError where another one was asked for."""
    if config.vocab_size not in (None, made.vocab_size):
        raise UsageError(
            f"model.vocab_size={config.vocab_size}, but the dataset's {made.kind} tokenizer has {made.vocab_size} tokens; "
            "leave it null"
        )
    return replace(config, vocab_size=made.vocab_size)


def train_run(
    folder: Path,
    dataset: Dataset,
    model_config: ModelConfig,
    train_config: TrainConfig,
    device: torch.device,
    *,
    resume: bool,
    started: str,
    stop_asked: Callable[[], bool],
    init_from: Path | None = None,
    world: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Event]:
    """Train in the run folder `folder` until it holds model.safetensors, or until `stop_asked`.

    With `resume`, a finished run is left as it is and an unfinished one goes on, where parameters and dataset
    are the same; otherwise the training begins anew: with the weights of the finished run `init_from`, where one is named,
    in place of random ones. Raises Diverged on a loss that is not finite.

    In a `world` of several processes all of them call this with the same arguments and see the same folder; the leading
    one alone writes there.
    """
    made = dataset.tokens.load_tokenizer()
    model_config = fit_vocabulary(model_config, made)
    dataset.check_context(model_config.context_length)
    parameters = {"model": asdict(model_config), "train": asdict(train_config)}
    metadata = {"model": parameters["model"], "dataset": dataset.identity(), "tokenizer": made.identity()}
    used = [(dataset.folder, dataset.identity())]
    origin = None
    if init_from is not None:
        if init_from.resolve() == folder.resolve():
            raise UsageError(f"--init-from {init_from} is the run to be trained itself; choose another -o")
        origin = resolve_init_from(init_from, dataset, model_config)
        metadata["init_from"] = origin.sha256
        used.append((origin.folder, origin.identity))
    run = RunFolder(folder)
    with ExitStack() as stack:

        def look_locked() -> ResumeState:
            unlocked = stack.enter_context(run.locked())
            found = inspect_run_folder(run, parameters, metadata, dataset.texts(), used, train_config.max_steps, resume)
            return replace(found, notices=[unlocked, *found.notices]) if unlocked else found

        found = world.broadcast_from_main(look_locked)
        yield from map(Notice, found.notices)
        if found.finished:
            return
        state, manifest = found.state, found.manifest
        if state and state.processes == world.size:
            set_thread_count(state.threads)  # sums depend on them in their last bits
        # the trainer first: a model that does not fit into memory must not cost the run that is there
        starting = initial_model(run, state, origin, model_config, train_config).to(device)
        trainer = Trainer(starting, dataset, train_config, device, world)
        sampler = Sampler(trainer.model, made, train_config, device)
        if failure := trainer.compile():
            yield Notice(f"torch.compile does not work here ({failure}); going on without")
        if state:
            trainer.restore(state.step, load_tensors(run.folder / CHECKPOINT_FOLDER / state.optimizer)[0])
            if trainer.loss_scale and state.loss_scale:
                trainer.loss_scale = LossScale(*state.loss_scale)
        session = _session(trainer, state.step if state else 0, started)
        if manifest is None or state is None:  # a training killed before its first state left nothing to go on with
            manifest = _manifest(folder, trainer, parameters, metadata, used, session)
            first = manifest
            world.broadcast_from_main(lambda: run.begin(first, parameters, made))
        else:
            before = end_session(sessions_in(manifest), state.step)
            if differences := session_differences(before[-1] | _means_of(state), session):
                yield Notice(f"the steps so far were done {differences}; last bits may differ")
            manifest = manifest | latest_session(session) | {"ended": None, "sessions": [*before, session]}
            resumed = manifest
            world.broadcast_from_main(lambda: run.record(resumed))
        if world.is_main:
            (folder / DIVERGED_FILE).unlink(missing_ok=True)
        try:
            yield from _steps(run if world.is_main else None, state, manifest, trainer, sampler, metadata, stop_asked)
        except Diverged as error:
            if world.is_main:
                write_json(folder / DIVERGED_FILE, error.details)
            raise Diverged(f"{error}; {folder / DIVERGED_FILE} tells all about it", error.details) from None


def _session(trainer: Trainer, step: int, started: str) -> dict[str, Any]:
    """The session of this process, from `step` on."""
    return begin_session(
        step,
        started,
        device=trainer.device.type,
        threads=thread_count(),
        processes=trainer.world.size,
        precision=str(trainer.precision).removeprefix("torch."),
    )


def _means_of(state: SavedState) -> dict[str, Any]:
    """What a session tells of the means, as the state does."""
    precision = state.precision.removeprefix("torch.")
    return {"device": state.device, "threads": state.threads, "processes": state.processes, "precision": precision}


def _manifest(
    folder: Path,
    trainer: Trainer,
    parameters: dict[str, Any],
    metadata: dict[str, Any],
    used: list[tuple[Path, str]],
    session: dict[str, Any],
) -> Manifest:
    """The manifest of a training that begins; its outputs are filled in when it ends."""
    found = {name: value for name, value in metadata.items() if name != "model"} | {
        "parameters": count_parameters(trainer.model),
        "texts": trainer.dataset.texts(),
    }
    manifest = new_manifest(
        "run",
        "train",
        parameters=parameters,
        inputs=manifest_inputs(folder, used),
        outputs={},
        metadata=found,
        started=session["started"],
        seed=trainer.config.seed,
    )
    return manifest | latest_session(session) | {"ended": None, "sessions": [session]}


def _steps(
    run: RunFolder | None,
    state: SavedState | None,
    manifest: Manifest,
    trainer: Trainer,
    sampler: Sampler,
    metadata: dict[str, Any],
    stop_asked: Callable[[], bool],
) -> Iterator[Event]:
    """Steps from `state` (None: from the first) to the last one, then publish; without a `run` nothing is written."""
    config = trainer.config
    clock = ThroughputMeter(trainer)
    best_step, best_val_loss = (state.best_step, state.best_val_loss) if state else (None, None)
    if state is None:
        first = StepMetrics(step=0, tokens=0, train_loss=None, val_loss=trainer.validate(), lr=None, grad_norm=None)
        if run:
            run.append(METRICS_FILE, asdict(first))
            if sampler.due(0, validated=True):
                run.append(SAMPLES_FILE, sampler.line(0, tokens=0))
        yield first
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
        if run and logged:
            run.append(METRICS_FILE, asdict(record))
        if run and sampler.due(step, validated):
            run.append(SAMPLES_FILE, sampler.line(step, record.tokens))
        yield record
        stopping = not last and trainer.world.any(stop_asked(), trainer.device)
        if validated or stopping or _due(step, config.checkpoint_interval):
            state = SavedState(
                step=step,
                best_step=best_step,
                best_val_loss=best_val_loss,
                threads=thread_count(),
                device=trainer.device.type,
                processes=trainer.world.size,
                precision=str(trainer.precision),
                loss_scale=(trainer.loss_scale.value, trainer.loss_scale.since) if trainer.loss_scale else None,
            )
            if run:
                weights: dict[str, Tensor] = dict(trainer.model.named_parameters())
                run.save_state(state, weights, trainer.optimizer_state(), metadata | {"step": step})
        if run and (logged or stopping):
            timing = clock.line(step)
            run.append(TIMINGS_FILE, timing)
            if logged:
                yield Logged(record, timing, clock.seconds_left(step))
        if stopping:
            if run:
                ended = end_session(manifest["sessions"], step, timestamp())
                run.record(manifest | {"sessions": ended})
            trainer.world.barrier()  # who left before the state is saved would have torchrun end the process that saves it
            yield Stopped(step)
            return
    assert state is not None  # the last step is always validated and saved
    if run:
        run.publish(state, manifest)


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
