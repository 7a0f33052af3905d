"""One call of `train`: begin or resume the training in a run folder, then run the loop."""

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

from lib.artifact.manifest import Manifest, Session, new_manifest
from lib.artifact.record import to_json
from lib.artifact.tensors import load_tensors
from lib.config.model import ModelConfig
from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS, ProcessGroup
from lib.device.hardware import deterministic_kernels, set_thread_count
from lib.errors import UsageError
from lib.model.registry import count_parameters
from lib.run.folder import DIVERGED_FILE, ClassNames, read_model_config
from lib.run.sessions import begin_session, end_session, session_differences, with_sessions
from lib.run.state import CHECKPOINT_FOLDER, SavedState
from lib.tokenizer.base import Tokenizer
from lib.train.events import Event, Notice
from lib.train.initial_weights import InitFrom, initial_model, resolve_init_from
from lib.train.loop import train_loop
from lib.train.objective import Start
from lib.train.resume import ResumeState, inspect_run_folder, manifest_inputs
from lib.train.run_folder import RunFolder
from lib.train.samples import Sampler
from lib.train.tasks import build_objective, check_task
from lib.train.trainer import Diverged, Trainer
from lib.train.writer import NullWriter, RunWriter


def fit_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The model's configuration with the tokenizer's vocabulary size; UsageError if another one was asked for."""
    if config.vocab_size not in (None, tokenizer.vocab_size):
        raise UsageError(
            f"model.vocab_size={config.vocab_size}, but the dataset's {tokenizer.kind} tokenizer has "
            f"{tokenizer.vocab_size} tokens; leave it null"
        )
    return replace(config, vocab_size=tokenizer.vocab_size)


def fit_classes(config: ModelConfig, dataset: Dataset) -> ModelConfig:
    """The model's configuration with the number of classes of labeled texts; UsageError if another one was asked for."""
    n_classes = len(dataset.labeled.classes) if dataset.labeled else None
    if config.n_classes not in (None, n_classes):
        raise UsageError(
            f"model.n_classes={config.n_classes}, but {dataset.folder} has {n_classes or 'no'} classes; leave it null"
        )
    return replace(config, n_classes=n_classes)


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
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Event]:
    """Train in the run folder `folder` until it holds model.safetensors, or until `stop_asked`.

    With `resume`, a finished run is left as it is and an unfinished one continues, if parameters and dataset are the
    same. Otherwise the training starts over, with random weights or those of the finished run `init_from`. Raises Diverged on
    a loss that is not finite.

    All processes of a `group` call this with the same arguments and see the same folder; only the main one writes there.
    """
    tokenizer = dataset.tokens.load_tokenizer()
    check_task(train_config, model_config, dataset, init_from)
    model_config = fit_classes(fit_vocabulary(model_config, tokenizer), dataset)
    dataset.check_context(model_config.context_length)
    parameters = {"model": asdict(model_config), "train": asdict(train_config)}
    if chat := dataset.tokens.chat:
        parameters["chat"] = chat
    if dataset.labeled:
        parameters["classes"] = to_json(ClassNames(dataset.labeled.classes))
    metadata: dict[str, Any] = {"model": parameters["model"], "dataset": dataset.identity(), "tokenizer": tokenizer.identity()}
    inputs = [(dataset.folder, dataset.identity())]
    source = _source(init_from, folder, dataset, model_config, train_config.finetune)
    if source:
        metadata["init_from"] = source.sha256
        inputs.append((source.folder, source.identity))
    if train_config.finetune == "lora":
        metadata["lora_alpha"] = train_config.lora_alpha  # with the adapters' tensors all that they need
    run = RunFolder(folder)
    with ExitStack() as stack:

        def lock_and_inspect() -> ResumeState:
            notice = stack.enter_context(run.locked())
            there = inspect_run_folder(run, parameters, metadata, dataset.texts(), inputs, train_config.max_steps, resume)
            return replace(there, notices=[notice, *there.notices]) if notice else there

        there = group.broadcast_from_main(lock_and_inspect)
        yield from map(Notice, there.notices)
        if there.is_finished:
            return
        saved, manifest = there.state, there.manifest
        if saved and saved.processes == group.size:
            set_thread_count(saved.threads)  # the last bits of sums depend on it
        stack.enter_context(deterministic_kernels(device))
        # the trainer first: a model that does not fit into memory must not cost the run that is there
        model = initial_model(run.path, saved, source, model_config, train_config, dataset).to(device)
        start = Start(
            lambda: initial_model(run.path, None, source, model_config, train_config, dataset).to(device),
            load_tensors(run.path / CHECKPOINT_FOLDER / saved.reference)[0] if saved and saved.reference else None,
        )
        objective = build_objective(model, dataset, train_config, device, group, start)
        trainer = Trainer(objective)
        if train_config.finetune != "all":
            yield Notice(f"{_count(trainer, True):,} parameters are trained, {_count(trainer, False):,} frozen")
        prompt = objective.sample_prompt(tokenizer) if objective.writes_text else None
        sampler = Sampler(tokenizer, prompt, train_config, device) if prompt else None
        if failure := trainer.compile():
            yield Notice(f"torch.compile does not work here ({failure}); continuing without it")
        if saved:
            trainer.restore(saved, load_tensors(run.path / CHECKPOINT_FOLDER / saved.optimizer)[0])
        session = _new_session(trainer, started)
        if manifest and saved:
            sessions = end_session(manifest.sessions, saved.step)
            if differences := session_differences(replace(sessions[-1], **_conditions(saved)), session):
                yield Notice(f"the steps so far were done {differences}; last bits may differ")
            manifest = with_sessions(manifest, (*sessions, session))
            _on_main(group, run.resume, manifest)
        else:  # nothing is there, or a training killed before its first checkpoint
            manifest = _new_manifest(folder, trainer, parameters, metadata | {"texts": dataset.texts()}, inputs, session)
            _on_main(group, run.start_over, manifest, parameters, tokenizer)
        writer = RunWriter(run.path, manifest, metadata, sampler, saved) if group.is_main else NullWriter()
        try:
            yield from train_loop(trainer, writer, stop_asked)
        except Diverged as error:
            writer.diverged(error.details)
            raise Diverged(f"{error}; details are in {folder / DIVERGED_FILE}", error.details) from None


def _source(init_from: Path | None, folder: Path, dataset: Dataset, config: ModelConfig, finetune: str) -> InitFrom | None:
    """The finished run that the training starts from, if one was named; UsageError if `train.finetune` needs it."""
    if init_from is None:
        if finetune != "all":
            raise UsageError(
                f"train.finetune={finetune} leaves most weights as they are; name the run they are from: --init-from RUN"
            )
        return None
    if init_from.resolve() == folder.resolve():
        raise UsageError(f"--init-from {init_from} is the run to be trained itself; use another -o")
    source = resolve_init_from(init_from, dataset, config)
    new_tokens = (config.vocab_size or 0) - (read_model_config(init_from).vocab_size or 0)
    if finetune != "all" and new_tokens:
        raise UsageError(
            f"train.finetune={finetune} leaves the embeddings as they are, so the {new_tokens} tokens that {init_from} lacks "
            "would never be learned; use train.finetune=all, for a few steps at least, and start from that run"
        )
    return source


def _count(trainer: Trainer, is_trained: bool) -> int:
    """The parameters that are trained, or those that are frozen."""
    return sum(weight.numel() for weight in trainer.trained.parameters() if weight.requires_grad == is_trained)


def _on_main(group: ProcessGroup, write: Callable[..., None], *arguments: Any) -> None:
    """Have the main process write; the others wait for it, and raise what it raises."""
    group.broadcast_from_main(lambda: write(*arguments))


def _new_session(trainer: Trainer, started: str) -> Session:
    """The session of this process, from the trainer's step on."""
    return begin_session(trainer.state.step, started, **_conditions(trainer.saved_state()))


def _conditions(state: SavedState) -> dict[str, Any]:
    """What the last bits of a step depend on besides its inputs, as a session lists it."""
    return {
        "device": state.device,
        "threads": state.threads,
        "processes": state.processes,
        "precision": state.precision.removeprefix("torch."),
    }


def _new_manifest(
    folder: Path,
    trainer: Trainer,
    parameters: dict[str, Any],
    metadata: dict[str, Any],
    inputs: list[tuple[Path, str]],
    session: Session,
) -> Manifest:
    """The manifest of a training that begins; its outputs are filled in when it ends."""
    run_metadata = {name: value for name, value in metadata.items() if name != "model"} | {
        "parameters": count_parameters(trainer.model),
    }
    manifest = new_manifest(
        "run",
        "train",
        parameters=parameters,
        inputs=manifest_inputs(folder, inputs),
        outputs={},
        metadata=run_metadata,
        started=session.started,
    )
    return with_sessions(replace(manifest, seed=trainer.config.seed), (session,))
