"""Training: exact, resumable, never half-written."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.tensors import load_tensors
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.model.registry import build_model
from lib.run.folder import DIVERGED_FILE, MODEL_FILE, SAMPLE_FILE, load_run
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE, StepMetrics, read_metrics, training_seconds
from lib.run.samples import SAMPLES_FILE
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE, read_state
from lib.train.events import Notice, Stopped
from lib.train.naive import train_naive
from lib.train.next_token import NextToken
from lib.train.optimizer import build_optimizers
from lib.train.run_folder import RunFolder
from lib.train.schedule import learning_rate
from lib.train.session import train_run
from lib.train.trainer import Diverged, Trainer
from stages.shared import stopping
from tests import forks
from tests.conftest import FEW, PROJECT, TINY, Here, Stage

CPU = torch.device("cpu")


def config(**changes: Any) -> Config:
    settings = {"max_steps": 12, "eval_interval": 4, "batch_size": 4} | changes
    return resolve_config(load_params(PROJECT / "params.yaml"), "debug", [f"train.{k}={v}" for k, v in settings.items()])


def train(folder: Path, small: Path, made: Config, *, resume: bool = True, stop_after: int | None = None) -> list[Any]:
    steps = 0

    def asked() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    data = Dataset(small / "dataset")
    return list(train_run(folder, data, made.model, made.train, CPU, resume=resume, started="now", stop_asked=asked))


def trainer(small: Path, n_layers: int = 2, **changes: Any) -> Trainer:
    made = config(**changes)
    built = build_model(dataclasses.replace(made.model, vocab_size=256, n_layers=n_layers))
    built.initialize(torch.Generator().manual_seed(1))
    return Trainer(NextToken(built, Dataset(small / "dataset"), made.train, CPU))


def outcome(folder: Path) -> tuple[bytes, ...]:
    return tuple((folder / name).read_bytes() for name in (MODEL_FILE, METRICS_FILE, SAMPLES_FILE))


def test_a_run_holds_what_the_contract_lists(small: Path) -> None:
    names = {entry.name for entry in (small / "run").iterdir() if not entry.name.startswith(".")}
    assert names == {
        "model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl", "timings.jsonl", "checkpoint", "manifest.json",
        "samples.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_trainer_does_what_the_loop_that_everybody_writes_does(small: Path, weight_decay: float) -> None:
    fast, plain = (
        trainer(small, max_steps=50, weight_decay=weight_decay, warmup_steps=5, learning_rate=3e-3) for _ in range(2)
    )
    losses = [fast.train_step().train_loss for _ in range(50)]
    assert losses == pytest.approx(list(train_naive(plain.model, Dataset(small / "dataset"), plain.config)), abs=2e-4)
    for name, weight in plain.model.named_parameters():
        torch.testing.assert_close(fast.model.get_parameter(name), weight, atol=1e-3, rtol=0, msg=name)


def test_the_same_inputs_give_the_same_bytes_in_any_folder(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "deep" / "elsewhere", small, config())
    assert outcome(tmp_path / "deep" / "elsewhere") == outcome(small / "run")


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_a_stopped_run_goes_on_to_the_same_bytes(small: Path, tmp_path: Path, stop_after: int) -> None:
    events = train(tmp_path / "run", small, config(), stop_after=stop_after)
    assert events[-1] == Stopped(stop_after)
    assert not (tmp_path / "run" / MODEL_FILE).exists()
    train(tmp_path / "run", small, config())
    assert outcome(tmp_path / "run") == outcome(small / "run")


def test_a_killed_run_goes_on_to_the_same_bytes(small: Path, tmp_path: Path, stage: Stage) -> None:
    """KILL_ROUNDS trainings, one where the variable is not set, each killed four times; `make test-kill` has twenty."""
    words = [str(small / "dataset"), "--config", "debug", "--set", "train.checkpoint_interval=7"]
    words += ["--set", "train.max_steps=200", "--set", "train.eval_interval=100", "--quiet"]
    began = time.monotonic()
    stage("train", *words, "-o", tmp_path / "whole")
    seconds = time.monotonic() - began
    for round in range(int(os.environ.get("KILL_ROUNDS", "1"))):
        draw = random.Random(round)
        folder = tmp_path / f"killed-{round}"
        for _ in range(4):
            killed = forks.shared().start(["train", *words, "-o", str(folder)])
            time.sleep(draw.uniform(0.1, 0.5) * seconds)
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            killed.outputs()
        stage("train", *words, "-o", folder)
        assert outcome(folder) == outcome(tmp_path / "whole"), f"round {round}"


def test_a_run_killed_before_its_first_state_begins_again(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", small, config(), stop_after=2)
    (tmp_path / "run" / CHECKPOINT_FOLDER / STATE_FILE).unlink()
    train(tmp_path / "run", small, config())
    assert outcome(tmp_path / "run") == outcome(small / "run")


def test_a_finished_run_is_left_alone(copied: Path) -> None:
    before = (copied / "run" / MODEL_FILE).stat().st_mtime_ns
    events = train(copied / "run", copied, config())
    assert [type(event) for event in events] == [Notice]
    assert "finished already" in events[0].text
    assert (copied / "run" / MODEL_FILE).stat().st_mtime_ns == before


def test_other_parameters_begin_anew_and_name_the_first_that_differs(copied: Path) -> None:
    (copied / "run" / SAMPLE_FILE).write_text("old")
    (copied / "run" / "notes.txt").write_text("mine")
    notice, *_ = train(copied / "run", copied, config(learning_rate=1e-4))
    assert "train.learning_rate was 0.003, now 0.0001" in notice.text
    assert not (copied / "run" / SAMPLE_FILE).exists()
    assert (copied / "run" / "notes.txt").exists()
    assert outcome(copied / "run") != outcome_of_copy(copied)


def outcome_of_copy(copied: Path) -> tuple[bytes, ...]:
    train(copied / "first", copied, config())
    return outcome(copied / "first")


def test_how_often_the_state_is_saved_changes_nothing(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", small, config(checkpoint_interval=1))
    assert outcome(tmp_path / "run") == outcome(small / "run")


def test_the_published_weights_are_the_last_or_the_best_by_validation(small: Path, tmp_path: Path) -> None:
    worsening = {"learning_rate": 0.3, "eval_interval": 2, "warmup_steps": 0, "min_lr_ratio": 1.0}
    train(tmp_path / "last", small, config(**worsening))
    assert load_tensors(tmp_path / "last" / MODEL_FILE)[1]["step"] == 12
    train(tmp_path / "run", small, config(**worsening, publish="best"))
    lines = read_metrics(tmp_path / "run")[1:]
    losses = {line.step: line.val_loss for line in lines if line.val_loss is not None}
    best = min(losses, key=lambda step: losses[step])
    assert losses[best] < losses[12], "the example should get worse at the end"
    assert load_tensors(tmp_path / "run" / MODEL_FILE)[1]["step"] == best
    loaded = load_run(tmp_path / "run", CPU)
    assert NextToken(loaded.model, Dataset(small / "dataset"), config().train, CPU).validate().loss == losses[best]


def test_others_may_read_what_a_run_holds(small: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o044 for path in (small / "run").iterdir() if not path.name.startswith(".")}
    assert set(modes.values()) == {0o044}, modes


def test_the_checkpoint_holds_the_parameters_and_facts_only(small: Path) -> None:
    tensors, metadata = load_tensors(small / "run" / MODEL_FILE)
    assert sum(tensor.numel() for tensor in tensors.values()) == 42_688
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert set(metadata) == {"model", "dataset", "tokenizer", "step"}


def test_pieces_of_a_batch_equal_the_whole_batch(small: Path) -> None:
    whole, pieces = trainer(small, batch_size=8), trainer(small, batch_size=8, grad_accum_steps=8)
    for _ in range(3):
        one, eight = whole.train_step(), pieces.train_step()
        assert one.train_loss == pytest.approx(eight.train_loss, rel=1e-5)
        assert one.grad_norm == pytest.approx(eight.grad_norm, rel=1e-4)
    for (name, a), b in zip(whole.model.named_parameters(), pieces.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_it_learns_a_batch_by_heart(small: Path) -> None:
    made = trainer(small, learning_rate=1e-2, warmup_steps=0, max_steps=1000)
    assert isinstance(made.objective, NextToken)
    dataset = made.objective.dataset
    dataset.window_starts = lambda seed, step, *rest: Dataset.window_starts(dataset, seed, 0, *rest)  # type: ignore[method-assign]
    for _ in range(150):
        record = made.train_step()
    assert record.train_loss is not None
    assert record.train_loss < 0.3


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(small: Path) -> None:
    made = trainer(small)
    made.train_step()
    with torch.no_grad():
        made.model.blocks[1].norm1.scale[3] = torch.inf  # type: ignore[union-attr, index]
    before = [weight.clone() for weight in made.model.parameters()]
    with pytest.raises(Diverged, match=r"step 2: the loss is nan .* first in the gradient of"):
        made.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, made.model.parameters(), strict=True))


def test_a_validation_loss_that_is_not_finite_is_never_published(small: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 1: the validation loss is"):
        train(tmp_path / "run", small, config(max_steps=1, learning_rate=1e30))
    assert not (tmp_path / "run" / MODEL_FILE).exists()
    assert json.loads((tmp_path / "run" / DIVERGED_FILE).read_text())["step"] == 1


def test_a_training_that_diverges_tells_step_tensors_and_batch_and_keeps_its_last_state(
    small: Path, tmp_path: Path, stage: Stage
) -> None:
    words = ["--config", "debug", "--set", "train.max_steps=9", "--set", "train.learning_rate=1e30"]
    words += ["--set", "train.grad_clip=0", "--set", "train.eval_interval=0", "--set", "train.checkpoint_interval=1"]
    told = stage("train", small / "dataset", "-o", tmp_path / "run", *words, code=1).stderr
    assert "diverged.json" in told
    metadata = json.loads((tmp_path / "run" / DIVERGED_FILE).read_text())
    assert {"step", "loss", "grad_norm", "not_finite", "rate", "batch"} == metadata.keys()
    assert metadata["batch"] == Dataset(small / "dataset").batch(1, metadata["step"] - 1, 8).tolist()
    state = read_state(tmp_path / "run")
    assert state is not None
    assert state.step == metadata["step"] - 1


def test_a_budget_of_time_ends_a_training_cleanly_and_its_last_weights_can_be_used(
    small: Path, tmp_path: Path, stage: Stage
) -> None:
    words = [small / "dataset", "-o", tmp_path / "run", "--config", "debug", "--set", "train.max_steps=100000"]
    words += ["--set", "train.eval_interval=0"]
    told = stage("train", *words, "--stop-after", "2s").stderr
    assert "the same command resumes" in told
    assert not (tmp_path / "run" / MODEL_FILE).exists()
    state = read_state(tmp_path / "run")
    assert state is not None
    before = (tmp_path / "run" / METRICS_FILE).read_bytes()
    evaluation = json.loads(stage("evaluate", tmp_path / "run", "--weights", "last", *FEW).stdout)
    assert evaluation["model_sha256"] == state.files[state.weights].sha256
    assert evaluation["loss"] < read_metrics(tmp_path / "run")[0].val_loss, "it has learned something by then"
    assert stage("generate", tmp_path / "run", "To", "--weights", "last", "--max-new-tokens", "3").stdout
    assert (tmp_path / "run" / METRICS_FILE).read_bytes() == before, "reading changes nothing"
    assert "has no finished model.safetensors" in stage("evaluate", tmp_path / "run", code=1).stderr


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0", 0)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert stopping.parse_duration(None, None, text) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 hour", "1d", "nan"])
def test_what_is_no_time_is_refused(text: str, small: Path, stage: Stage, tmp_path: Path) -> None:
    done = stage("train", small / "dataset", "-o", tmp_path / "run", "--config", "debug", f"--stop-after={text}", code=2)
    assert f"invalid duration {text!r}; use 90s, 10m or 2h" in done.stderr


def test_a_model_that_does_not_fit_costs_no_finished_run(copied: Path, stage: Stage) -> None:
    words = ["--config", "debug", "--set", "model.emb_dim=10000000"]
    assert "out of memory" in stage("train", copied / "dataset", "-o", copied / "run", *words, code=1).stderr
    assert outcome(copied / "run")


def test_a_kill_while_the_folder_is_made_does_not_lock_it(small: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".manifest.json.999999.part").touch()
    train(tmp_path / "run", small, config())
    assert outcome(tmp_path / "run") == outcome(small / "run")


@pytest.mark.parametrize("content", ["[]", "{}", '{"step": "x"}'])
def test_a_state_that_is_none_is_not_resumed(small: Path, tmp_path: Path, content: str) -> None:
    train(tmp_path / "run", small, config(), stop_after=5)
    (tmp_path / "run" / CHECKPOINT_FOLDER / STATE_FILE).write_text(content)
    with pytest.raises(MakegptError, match="start over with --resume never"):
        train(tmp_path / "run", small, config())


def test_the_gradient_is_clipped_to_its_norm(small: Path) -> None:
    made = trainer(small, grad_clip=0.01, max_steps=2)
    record = made.train_step()
    assert record.grad_norm is not None
    assert record.grad_norm > 0.01


def test_the_optimizer_is_adamw_by_its_formula(small: Path) -> None:
    made = trainer(small, learning_rate=0.01, warmup_steps=0, grad_clip=0.0, weight_decay=0.1)
    weight = made.model.out_head.weight
    before = weight.detach().clone()
    ids = torch.from_numpy(Dataset(small / "dataset").batch(1, 0, 4).astype("int64"))
    torch.nn.functional.cross_entropy(made.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert weight.grad is not None
    gradient = weight.grad.clone()
    for optimizer in made.optimizers:
        optimizer.zero_grad()
    made.train_step()
    # at the first step both moments, corrected for their start at 0, are g and g²
    expected = before * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_decay_and_no_decay_groups_hold_every_parameter_once(small: Path) -> None:
    built = trainer(small).model
    (adamw,) = build_optimizers(built, config(embedding_lr_mult=7).train)
    groups = adamw.param_groups
    assert [(group["weight_decay"], group["lr_mult"]) for group in groups] == [(0.1, 7.0), (0.1, 1.0), (0.0, 1.0)]
    assert sum(len(group["params"]) for group in groups) == len(list(built.parameters()))


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    made = config(max_steps=100, warmup_steps=10, learning_rate=1.0, min_lr_ratio=0.1).train
    rates = [learning_rate(step, made) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[99] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_a_short_run_shortens_its_warm_up(steps: int) -> None:
    made = config(max_steps=steps, warmup_steps=100, learning_rate=1.0).train
    assert max(learning_rate(step, made) for step in range(steps)) == 1.0


def test_metrics_hold_what_follows_from_the_inputs(small: Path) -> None:
    lines = read_metrics(small / "run")
    assert [line.step for line in lines] == list(range(13))
    assert [line.step for line in lines if line.val_loss is not None] == [0, 4, 8, 12]
    assert lines[-1].tokens == 12 * 4 * 32
    written = [json.loads(line) for line in (small / "run" / METRICS_FILE).read_text().splitlines()]
    assert {tuple(line) for line in written} == {("step", "tokens", "train_loss", "val_loss", "lr", "grad_norm")}, (
        "null is kept"
    )
    timings = [json.loads(line) for line in (small / "run" / TIMINGS_FILE).read_text().splitlines()]
    assert {tuple(line) for line in timings} == {("step", "seconds", "tokens_per_second", "mfu", "memory")}


def test_an_evaluation_only_at_the_end(small: Path, tmp_path: Path) -> None:
    records = [event for event in train(tmp_path / "run", small, config(eval_interval=0)) if isinstance(event, StepMetrics)]
    assert [record.step for record in records if record.val_loss is not None] == [0, 12]


def test_a_vocabulary_that_is_not_the_tokenizers_is_refused(small: Path, tmp_path: Path) -> None:
    made = config()
    wrong = dataclasses.replace(made, model=dataclasses.replace(made.model, vocab_size=300))
    with pytest.raises(UsageError, match=r"model\.vocab_size=300, but the dataset's bytes tokenizer has 256"):
        train(tmp_path / "run", small, wrong)


@pytest.mark.parametrize("name", ["weights", "optimizer"])
def test_a_damaged_state_is_not_resumed(small: Path, tmp_path: Path, name: str) -> None:
    train(tmp_path / "run", small, config(), stop_after=5)
    (path,) = (tmp_path / "run" / CHECKPOINT_FOLDER).glob(f"{name}-00000005*")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(MakegptError, match=r"cannot be resumed: .*damaged.*start over with --resume never"):
        train(tmp_path / "run", small, config())
    train(tmp_path / "run", small, config(), resume=False)
    assert outcome(tmp_path / "run") == outcome(small / "run")


def test_metrics_that_were_cut_are_not_resumed(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", small, config(), stop_after=5)
    os.truncate(tmp_path / "run" / METRICS_FILE, 10)
    with pytest.raises(MakegptError, match="shorter than when the state was saved"):
        train(tmp_path / "run", small, config())


def test_two_trainings_in_one_folder_are_refused_by_name(small: Path, tmp_path: Path, stage: Stage) -> None:
    with RunFolder(tmp_path / "run").locked():
        done = stage("train", small / "dataset", "-o", tmp_path / "run", "--config", "debug", *TINY, code=1)
    assert f"{tmp_path / 'run'} is being trained by another `train` (process {os.getpid()})" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_is_told_by_the_exit_code(small: Path, tmp_path: Path, number: int, code: int) -> None:
    words = [str(small / "dataset"), "--config", "debug", "--set", "train.max_steps=100000", "-o", str(tmp_path / "run")]
    process: Any
    if number == signal.SIGINT:
        command = [sys.executable, "-m", "stages.train", *words]
        process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True)
    else:
        process = forks.shared().start(["train", *words])
    while not (tmp_path / "run" / CHECKPOINT_FOLDER / STATE_FILE).exists():
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command resumes" in said
    step = json.loads((tmp_path / "run" / CHECKPOINT_FOLDER / STATE_FILE).read_text())["step"]
    assert f"stopped after step {step};" in said


def test_an_artifact_of_another_version_is_refused_with_what_to_do(copied: Path, here: Here) -> None:
    for name in ("dataset", "run"):
        manifest = json.loads((copied / name / "manifest.json").read_text())
        manifest["facts"] = manifest.pop("metadata")  # as the first format had it
        del manifest["format"]
        (copied / name / "manifest.json").write_text(json.dumps(manifest))
    says = "of format 1, which this version does not read (it writes 3); remove the folder and make it again"
    assert f"holds a run {says}" in here("generate", copied / "run", "To be", code=1).err
    assert f"holds a dataset {says}" in here("train", copied / "dataset", "-o", copied / "new", "--config", "debug", code=1).err
    here("tokenize", copied / "play.txt", "-o", copied / "tokens", "--config", "debug")
    assert (
        f"holds a dataset {says}"
        in here("build-dataset", copied / "tokens", "-o", copied / "dataset", "--config", "debug", code=1).err
    )


def test_timings_add_up_to_no_more_than_the_whole_command(small: Path, tmp_path: Path, stage: Stage) -> None:
    began = time.perf_counter()
    stage("train", small / "dataset", "-o", tmp_path / "run", "--config", "debug", *TINY, "--set", "train.log_interval=5")
    whole = time.perf_counter() - began
    lines = [json.loads(line) for line in (tmp_path / "run" / "timings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 8, 10, 12]
    spent = training_seconds(tmp_path / "run")
    assert spent is not None
    assert 0 < spent <= whole
    # every step is in one line or another: at its rate, its tokens took no longer than the line says
    for line, steps in zip(lines, (4, 1, 3, 2, 2), strict=True):
        assert steps * 4 * 32 / line["tokens_per_second"] <= line["seconds"] + 1e-3


def test_muon_learns_and_goes_on_to_the_same_bytes(small: Path, tmp_path: Path) -> None:
    chosen = config(optimizer="muon", learning_rate=1e-2)
    train(tmp_path / "whole", small, chosen)
    train(tmp_path / "run", small, chosen, stop_after=5)
    train(tmp_path / "run", small, chosen)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    losses = [line.train_loss for line in read_metrics(tmp_path / "whole")]
    assert losses[-1] < losses[1] - 0.3


def test_muon_takes_the_matrices_and_adamw_the_rest(small: Path) -> None:
    built = trainer(small).model
    adamw, muon = build_optimizers(built, config(optimizer="muon", embedding_lr_mult=7).train)
    names = {weight: name for name, weight in built.named_parameters()}
    taken = {names[weight] for group in muon.param_groups for weight in group["params"]}
    assert taken == {name for name, weight in built.named_parameters() if weight.dim() == 2 and name.startswith("blocks.")}
    left = {names[weight] for group in adamw.param_groups for weight in group["params"]}
    assert left | taken == set(names.values())
    assert not left & taken
