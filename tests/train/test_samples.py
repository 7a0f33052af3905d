"""Samples through training: they show the weights of their step, come back to the byte, and leave the training alone."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.manifest import MANIFEST, describe_files
from lib.data.dataset import Dataset
from lib.errors import MakegptError, UsageError
from lib.generate.linear import QuantizedLinear
from lib.generate.quantize import InferenceModel
from lib.generate.request import encode_prompt
from lib.model.registry import build_model
from lib.run.folder import MODEL_FILE, finished_manifest
from lib.run.metrics import METRICS_FILE, StepMetrics
from lib.run.samples import SAMPLES_FILE, Sample, read_samples
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE
from lib.tokenizer.base import Tokenizer
from lib.train.events import Logged
from lib.train.loop import train_loop
from lib.train.samples import Sampler
from lib.train.writer import NullWriter, RunWriter
from tests.train.test_loop import CPU, config, outcome, train, trainer


def sampler(tokenizer: Tokenizer, **changes: Any) -> Sampler:
    train = dataclasses.replace(config().train, **changes)
    return Sampler(tokenizer, encode_prompt(tokenizer, train.sample_prompt), train, CPU)


def metrics(step: int, validated: bool = False) -> StepMetrics:
    """Those of a step of ten tokens."""
    return StepMetrics(step=step, tokens=10 * step, train_loss=1.0, val_loss=1.0 if validated else None, lr=0.1, grad_norm=1.0)


@pytest.fixture
def tokenizer(small: Path) -> Tokenizer:
    return Dataset(small / "dataset").tokens.load_tokenizer()


def test_a_line_tells_step_tokens_prompt_and_text(small: Path) -> None:
    lines = [json.loads(line) for line in (small / "run" / SAMPLES_FILE).read_text().splitlines()]
    assert [list(line) for line in lines] == [["step", "tokens", "prompt", "text"]] * 4
    assert [Sample(**line) for line in lines] == read_samples(small / "run")
    assert [(line["step"], line["tokens"]) for line in lines] == [(0, 0), (4, 512), (8, 1024), (12, 1536)]
    assert len({line["text"] for line in lines}) == 4
    manifest = finished_manifest(small / "run")
    assert manifest.outputs[SAMPLES_FILE] == describe_files(small / "run", [SAMPLES_FILE])[SAMPLES_FILE]


@pytest.mark.parametrize("drop_rate", [0.0, 0.2])
def test_samples_change_no_bit_of_the_training(small: Path, tmp_path: Path, drop_rate: float) -> None:
    for name, interval in (("every", 1), ("never", 0)):
        made = config(sample_interval=interval)
        made = dataclasses.replace(made, model=dataclasses.replace(made.model, drop_rate=drop_rate))
        train(tmp_path / name, small, made)
    assert len(read_samples(tmp_path / "every")) == 13
    assert not (tmp_path / "never" / SAMPLES_FILE).exists()
    assert SAMPLES_FILE not in finished_manifest(tmp_path / "never").outputs
    for file in (MODEL_FILE, METRICS_FILE):
        assert (tmp_path / "every" / file).read_bytes() == (tmp_path / "never" / file).read_bytes()


@pytest.mark.parametrize("stop_after", [2, 5, 8])
def test_a_stopped_training_goes_on_to_the_same_samples(small: Path, tmp_path: Path, stop_after: int) -> None:
    made = config(sample_interval=3)
    train(tmp_path / "whole", small, made)
    train(tmp_path / "stopped", small, made, stop_after=stop_after)
    with open(
        tmp_path / "stopped" / SAMPLES_FILE, "a"
    ) as file:  # as a kill leaves it: a sample later than the state, cut short
        file.write('{"step": 9, "tok')
    train(tmp_path / "stopped", small, made)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert [sample.step for sample in read_samples(tmp_path / "whole")] == [0, 3, 6, 9, 12]


def test_a_state_older_than_samples_goes_on_with_them_from_there(small: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", small, config(sample_interval=0), stop_after=6)
    path = tmp_path / "run" / CHECKPOINT_FOLDER / STATE_FILE
    state = json.loads(path.read_text())
    del state["samples_bytes"]
    path.write_text(json.dumps(state))
    train(tmp_path / "run", small, config())
    assert [sample.step for sample in read_samples(tmp_path / "run")] == [8, 12]


def test_a_run_older_than_samples_is_finished_all_the_same(copied: Path) -> None:
    path = copied / "run" / MANIFEST
    manifest = json.loads(path.read_text())
    for name in ("sample_interval", "sample_prompt", "sample_tokens", "sample_temperature"):
        del manifest["parameters"]["train"][name]
    path.write_text(json.dumps(manifest))
    (notice,) = train(copied / "run", copied, config(sample_interval=2))
    assert "finished already" in notice.text


def test_a_training_that_begins_anew_removes_the_old_samples(copied: Path) -> None:
    train(copied / "run", copied, config(seed=2, sample_interval=0))
    assert not (copied / "run" / SAMPLES_FILE).exists()


def test_a_sample_is_made_with_the_weights_of_its_step(small: Path, tokenizer: Tokenizer) -> None:
    at_work = trainer(small)
    made = sampler(tokenizer)
    before = made.sample(at_work.model, metrics(3))
    for _ in range(3):
        at_work.train_step()
    after = made.sample(at_work.model, metrics(3))
    assert after.text != before.text
    fresh = build_model(at_work.model.config)
    fresh.load_state_dict(at_work.model.state_dict())
    assert sampler(tokenizer).sample(fresh, metrics(3)) == after


def test_an_inference_model_shares_every_number_and_leaves_the_trained_model_alone(small: Path) -> None:
    model = trainer(small).model
    attributes = [set(vars(module)) for module in model.modules()]
    inference = InferenceModel(model)
    assert model.training
    assert not inference.training
    assert not any(isinstance(module, QuantizedLinear) for module in model.modules())
    assert [set(vars(module)) for module in model.modules()] == attributes, "no method is patched onto it"
    addresses = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert {tensor.data_ptr() for tensor in (*inference.parameters(), *inference.buffers())} == addresses


def test_the_default_random_numbers_are_left_alone(small: Path, tokenizer: Tokenizer) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    sampler(tokenizer).sample(trainer(small).model, metrics(1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_text_follows_from_seed_and_step(small: Path, tokenizer: Tokenizer) -> None:
    model = trainer(small).model
    texts = [sampler(tokenizer, seed=seed).sample(model, metrics(step)).text for seed, step in [(1, 1), (1, 1), (1, 2), (2, 1)]]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    greedy = sampler(tokenizer, sample_temperature=0.0)
    assert greedy.sample(model, metrics(1)).text == greedy.sample(model, metrics(2)).text


def test_prompt_and_length_are_parameters(small: Path, tokenizer: Tokenizer) -> None:
    sample = sampler(tokenizer, sample_prompt="To be", sample_tokens=3).sample(trainer(small).model, metrics(0))
    assert sample.prompt == "To be"
    assert 0 < len(sample.text.encode()) <= 3 * 3


@pytest.mark.parametrize(
    ("interval", "steps"), [(None, [4, 8, 12]), (0, []), (5, [5, 10, 12]), (1, list(range(1, 13))), (100, [12])]
)
def test_samples_come_at_validations_or_at_an_interval_of_their_own(
    tokenizer: Tokenizer, interval: int | None, steps: list[int]
) -> None:
    sampling = sampler(tokenizer, sample_interval=interval)
    assert [step for step in range(1, 13) if sampling.is_due(metrics(step, validated=step % 4 == 0))] == steps


def test_scores_that_are_no_numbers_end_a_sample_and_not_the_training(small: Path, tokenizer: Tokenizer) -> None:
    model = trainer(small).model
    with torch.no_grad():
        model.out_head.weight.fill_(torch.nan)
    assert sampler(tokenizer).sample(model, metrics(7)) == Sample(step=7, tokens=70, prompt="", text="")


def test_a_prompt_that_cannot_be_encoded_is_refused_before_the_run_that_is_there_is_touched(copied: Path) -> None:
    before = outcome(copied / "run")
    with pytest.raises(UsageError, match=r"train\.sample_prompt"):
        train(copied / "run", copied, config(sample_prompt="\ud800", seed=9))
    assert outcome(copied / "run") == before


@pytest.mark.parametrize(
    "content", ["not json\n", "[]\n", "3\n", '{"step": 1}\n', '{"step": 1, "text": 3, "prompt": ""}\n', "\xff"]
)
def test_damaged_samples_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / SAMPLES_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(MakegptError, match=r"samples\.jsonl is damaged: line 1: .+; train the run again"):
        read_samples(tmp_path)


def test_a_process_that_is_not_the_main_one_trains_and_writes_nothing(small: Path) -> None:
    training = trainer(small)
    events = list(train_loop(training, NullWriter(), lambda: False))
    assert [type(event) for event in events if not isinstance(event, Logged)] == [StepMetrics] * 13
    assert training.state.step == 12
    writing = {name for name in vars(RunWriter) if not name.startswith("_")}
    assert writing == {name for name in vars(NullWriter) if not name.startswith("_")}, "a way to write that is not silenced"
