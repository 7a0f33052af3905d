"""Training an encoder-decoder: the loss however the batch is cut, what is held out, samples, the same bytes after a resume."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.artifact.strict_json import loads_copied_json
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS
from lib.errors import UsageError
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.layers import Linear
from lib.model.lora import AdaptedLinear, add_adapters
from lib.model.registry import build_model
from lib.run.folder import load_run
from lib.run.metrics import read_metrics
from lib.run.samples import read_samples
from lib.train.sequence_to_sequence import SequenceToSequence
from lib.train.tasks import check_task
from lib.train.trainer import Trainer
from tests.conftest import PROJECT, Here, Stage

CPU = torch.device("cpu")
CHANGES = ("model.kind=encoder_decoder", "model.positions=sinusoidal", "train.task=translate", "train.batch_size=6")
SETTINGS = ("--config", "debug", *(word for change in CHANGES for word in ("--set", change)), "--quiet")


def pairs(count: int) -> str:
    """Words of two to four letters, and the same in capital letters."""
    words = ["".join("abcde"[n // 5**place % 5] for place in range(2 + n % 3)) for n in range(count)]
    return "".join(f"{word}\t{word.upper()}\n" for word in dict.fromkeys(words))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "pairs.tsv").write_text(pairs(200))
    return folder


@pytest.fixture
def dataset(folder: Path, here: Here) -> Dataset:
    if not (folder / "dataset").exists():
        here("tokenize", "--parallel", folder / "pairs.tsv", "--tokenizer", "char", "-o", folder / "tokens")
        fractions = ("--val-fraction", 0.2, "--test-fraction", 0.1)
        here("build-dataset", folder / "tokens", "-o", folder / "dataset", "--context-length", 32, *fractions)
    return Dataset(folder / "dataset")


def config_of(*changes: str) -> Any:
    return resolve_config(load_params(PROJECT / "params.yaml"), "debug", [*CHANGES, *changes])


def objective(dataset: Dataset, **changes: Any) -> SequenceToSequence:
    config = config_of()
    model = build_model(replace(config.model, vocab_size=dataset.vocab_size))
    model.initialize(torch.Generator().manual_seed(1))
    return SequenceToSequence(model, dataset, replace(config.train, **changes), CPU, SINGLE_PROCESS)


def nats_one_by_one(model: EncoderDecoder, dataset: Dataset, name: str, smoothing: float = 0.0) -> tuple[float, int]:
    """The loss of a split by PyTorch's cross-entropy, pair by pair, and how many tokens it has."""
    texts = dataset.parallel
    assert texts is not None
    nats, count = 0.0, 0
    for number in texts.numbers(name).tolist():
        source, target = texts.source(number).tolist(), texts.target(number).tolist()
        encoded = model.encode(torch.tensor([source]), torch.tensor([len(source)]))
        logits = model.out_head(model.decode(torch.tensor([[texts.end, *target]]), [encoded]))[0]
        targets = torch.tensor([*target, texts.end])
        loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
        nats, count = nats + loss.item(), count + len(targets)
    return nats, count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_the_tokens_however_the_batch_is_cut(dataset: Dataset, smoothing: float) -> None:
    whole = Trainer(objective(dataset, label_smoothing=smoothing))
    cut = Trainer(objective(dataset, label_smoothing=smoothing, grad_accum_steps=3))
    for _ in range(3):
        first, second = whole.train_step(), cut.train_step()
        assert first.train_loss == pytest.approx(second.train_loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_an_epoch_has_the_loss_of_each_pair_alone_with_labels_smoothed_as_pytorch_does(
    dataset: Dataset, smoothing: float
) -> None:
    assert dataset.parallel is not None
    train = dataset.parallel.numbers("train").tolist()
    mine = objective(dataset, batch_size=len(train), label_smoothing=smoothing)
    assert sorted(mine.describe_batch(0)) == sorted(train)
    assert isinstance(mine.model, EncoderDecoder)
    with torch.no_grad():
        nats, count = nats_one_by_one(mine.model, dataset, "train", smoothing)
        assert mine.terms(0) == count
        assert mine.loss(0, range(len(train))).loss.item() == pytest.approx(nats, rel=1e-5)


def test_validation_counts_each_token_once_and_smooths_nothing(dataset: Dataset) -> None:
    mine = objective(dataset, label_smoothing=0.2)
    assert isinstance(mine.model, EncoderDecoder)
    with torch.no_grad():
        nats, count = nats_one_by_one(mine.model, dataset, "val")
    assert mine.validate().loss == pytest.approx(nats / count, rel=1e-5)
    assert mine.model.training


def test_a_step_puts_all_tokens_of_its_pairs_through_the_model(dataset: Dataset) -> None:
    mine = objective(dataset)
    assert dataset.parallel is not None
    assert mine.tokens_per_step == round(6 * dataset.parallel.tokens("train") / len(dataset.parallel.numbers("train")))
    weights = sum(6 * weight.numel() for name, weight in mine.model.named_parameters() if weight.dim() == 2)
    assert 0 < mine.operations_per_token < weights


def test_a_training_ends_with_the_same_bytes_after_a_resume_and_writes_the_targets(
    dataset: Dataset, folder: Path, here: Here, stage: Stage
) -> None:
    changes = ("train.learning_rate=1e-2", "train.label_smoothing=0.1", "train.batch_size=24", "train.max_steps=100")
    train = ("train", folder / "dataset", *SETTINGS, *(word for change in changes for word in ("--set", change)))
    whole, stopped = folder / "whole", folder / "stopped"
    here(*train, "-o", whole)
    here(*train, "-o", stopped, "--stop-after", "0s")
    assert not (stopped / "model.safetensors").exists()
    here(*train, "-o", stopped)
    for name in ("model.safetensors", "metrics.jsonl", "samples.jsonl"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()
    assert read_metrics(whole)[-1].val_loss < 0.4  # type: ignore[operator]
    texts, tokenizer = dataset.parallel, dataset.tokens.load_tokenizer()
    assert texts is not None
    source = tokenizer.decode(texts.source(int(texts.numbers("val")[0])).tolist())
    assert {sample.prompt for sample in read_samples(whole)} == {source}
    held_out = [tokenizer.decode(texts.source(int(n)).tolist()) for n in texts.numbers("val")]
    lines = "".join(json.dumps({"prompt": word, "number": n}) + "\n" for n, word in enumerate(held_out))
    written = stage("generate", whole, "--prompts", "-", "--json", "--temperature", 0, input=lines).stdout
    answers = [loads_copied_json(line) for line in written.splitlines()]
    assert [answer["number"] for answer in answers] == list(range(len(held_out)))
    right = sum(answer["text"] == word.upper() for answer, word in zip(answers, held_out, strict=True))
    assert right > 0.8 * len(held_out)


def test_a_text_cannot_be_scored_or_exported(dataset: Dataset, folder: Path, here: Here, stage: Stage) -> None:
    if not (folder / "whole").exists():
        here("train", folder / "dataset", *SETTINGS, "--max-steps", 2, "-o", folder / "whole")
    assert "is an encoder-decoder" in stage("plot", "tokens", folder / "whole", code=2).stderr
    drawn = stage("plot", "model", folder / "whole", "-o", folder / "model.svg", code=2).stderr
    assert "is an encoder-decoder, two stacks of blocks" in drawn
    exported = stage("export-weights", folder / "whole", "--to", "hf", "-o", folder / "out", code=2).stderr
    assert "has model.kind=encoder_decoder" in exported
    with pytest.raises(UsageError, match="is an encoder-decoder"):
        load_run(folder / "whole", CPU)
    for prompt, message, code in (("", "is empty", 2), ("abc" * 20, "sources of at most 32", 1), ("xyz", "not among the", 1)):
        assert message in stage("generate", folder / "whole", prompt, code=code).stderr
    assert "--from-endoftext is for texts" in stage("generate", folder / "whole", "ab", "--from-endoftext", code=2).stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.task=text"], "--task text trains no model.kind=encoder_decoder; use --task translate"),
        (["model.kind=gpt"], "--task translate trains no model.kind=gpt; use model.kind=encoder_decoder"),
        (["model.kind=gpt", "train.task=text"], "has parallel texts, from which --task translate learns, not --task text"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(dataset: Dataset, changes: list[str], message: str) -> None:
    config = config_of(*changes)
    with pytest.raises(UsageError) as caught:
        check_task(config.train, config.model, dataset, None)
    assert message in str(caught.value)


def test_a_text_has_no_sources(small: Path) -> None:
    config = config_of()
    with pytest.raises(UsageError, match="needs parallel texts"):
        check_task(config.train, config.model, Dataset(small / "dataset"), None)


def test_a_sample_of_a_source_beyond_the_context_is_refused(dataset: Dataset, here: Here, tmp_path: Path) -> None:
    long = ("--set", "train.sample_prompt=" + "ab" * 20)
    error = here("train", dataset.folder, *SETTINGS, *long, "--max-steps", 1, "-o", tmp_path / "run", code=2).err
    assert "train.sample_prompt has 40 tokens, more than the model's context of 32; give a shorter source" in error


def test_targets_are_no_running_text_to_be_counted(dataset: Dataset, here: Here, tmp_path: Path) -> None:
    changes = ("--set", "train.head_init=unigram", "--set", "model.tie_weights=false")
    error = here("train", dataset.folder, *SETTINGS, *changes, "--max-steps", 1, "-o", tmp_path / "run", code=2).err
    assert "train.head_init=unigram counts running text, not targets" in error


def test_adapters_of_all_matrices_are_those_of_cross_attention_too() -> None:
    model = build_model(replace(config_of().model, vocab_size=9))
    add_adapters(model, 2, 4.0)
    left = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and name != "out_head" and not isinstance(module, AdaptedLinear)
    ]
    assert left == []
