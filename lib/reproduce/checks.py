"""The measurements that `references.yaml` asks for, each with our own code.

A check takes a `CheckContext` and the row's arguments and gives what it measured, one value or several. If a text or a
run is missing, it raises `MissingInput`: the row is then not checked, which is not a failure.
"""

import math
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, Callable, Sequence

import numpy as np
import torch

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.shuffle import permute
from lib.data.text import open_document
from lib.errors import MakegptError
from lib.generate.request import Request, encode_prompt, stream_text
from lib.model.attention import MultiHeadAttention
from lib.model.feed_forward import FeedForward
from lib.model.registry import build_model, count_parameters
from lib.ngrams.add_one import AddOneBigram
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.ngrams.smoothing import Smoothing
from lib.ngrams.witten_bell import WittenBell
from lib.reproduce.references import Value
from lib.run.folder import MODEL_FILE, finished_manifest, load_run
from lib.run.metrics import read_metrics
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE
from lib.tokenizer.registry import make_tokenizer
from lib.tokenizer.word import split_words
from lib.train.resume import config_mismatch

_CPU = torch.device("cpu")


class MissingInput(MakegptError):
    """A text or a run that a check needs is missing."""


class CheckContext:
    """The inputs of the checks: texts in the data folder and runs in `runs`; they may write to `scratch`."""

    def __init__(self, scratch: Path, runs: Path = Path("artifacts/runs")) -> None:
        self.scratch, self.runs = scratch, runs
        self.gpt2 = cache(self._gpt2)
        self.dataset = cache(self._dataset)

    def text(self, name: str) -> str:
        """The text `name`, without what is not its author's."""
        return "".join(open_document(_fetched(f"{name}.txt", name)).pieces())

    def _gpt2(self) -> Tokenizer:
        _fetched("gpt2/vocab.bpe", "gpt2")
        return make_tokenizer("gpt2", [], data_folder(VOCABULARY))

    def _dataset(
        self, text: str, kind: str, context_length: int = 1, stride: int | None = None, config_name: str | None = None
    ) -> Dataset:
        """The text `text` in tokens of `kind`, read and split with the parameters of a config, or the defaults."""
        if kind == "gpt2":
            self.gpt2()
        config = resolve_config(load_params(), config_name)
        document = open_document(_fetched(f"{text}.txt", text))
        folder = self.scratch / f"{text}.{kind}.{context_length}.{stride}.{config_name}"
        write_corpus(folder / "tokens", [document], kind, config.tokenize, started="", on_bytes=lambda _: None)
        build_dataset(
            folder / "tokens",
            folder / "dataset",
            context_length=context_length,
            stride=stride,
            val_fraction=config.build_dataset.val_fraction,
            test_fraction=config.build_dataset.test_fraction,
            started="",
        )
        return Dataset(folder / "dataset")

    def trained(self, config: str, text: str) -> Path:
        """The finished run of `config` on `text`; MissingInput if there is none, or if its parameters or text differ."""
        folder = self.runs / f"{config}-{text}"
        advice = f"train it with `make train CONFIG={config} DATASET={text}`"
        if not (folder / MODEL_FILE).is_file():
            raise MissingInput(f"{folder} is missing; {advice}")
        expected = resolve_config(load_params(), config)
        stride = expected.build_dataset.stride
        dataset = self.dataset(text, expected.tokenize.tokenizer, expected.model.context_length, stride, config)
        model = replace(expected.model, vocab_size=dataset.vocab_size)
        parameters = {"model": asdict(model), "train": asdict(expected.train)}
        metadata = {"dataset": dataset.identity(), "tokenizer": dataset.tokenizer_identity}
        if difference := config_mismatch(finished_manifest(folder), parameters, metadata):
            raise MissingInput(f"{folder} was trained with other parameters ({difference}); move it away and {advice}")
        return folder


def _fetched(file: str, name: str) -> Path:
    path = data_folder(file) / file
    if not path.is_file():
        raise MissingInput(f"{path} is missing; get it with `fetch {name}`")
    return path


# Tokens.


def ids(context: CheckContext, text: str) -> Sequence[Value]:
    """GPT-2's ids of `text`."""
    return context.gpt2().encode(text)


def end_of_text(context: CheckContext) -> Sequence[Value]:
    """GPT-2's id of the end-of-text token."""
    return [context.gpt2().endoftext or 0]


def tokens(context: CheckContext, text: str) -> Sequence[Value]:
    """How many GPT-2 tokens a text has."""
    return [len(context.dataset(text, "gpt2").tokens)]


def tokens_of_parts(context: CheckContext, text: str) -> Sequence[Value]:
    """The GPT-2 tokens of the first nine tenths of a text's characters, and of the rest, encoded separately."""
    whole = context.text(text)
    cut = len(whole) * 9 // 10
    return [len(context.gpt2().encode(part)) for part in (whole[:cut], whole[cut:])]


def words(context: CheckContext, text: str) -> Sequence[Value]:
    """The numbers of words and punctuation marks of a text, all and distinct."""
    pieces = split_words(context.text(text))
    return [len(pieces), len(set(pieces))]


def split(context: CheckContext, text: str, tokenizer: str) -> Sequence[Value]:
    """The numbers of training and validation tokens."""
    dataset = context.dataset(text, tokenizer)
    return [dataset.train_tokens, dataset.val_tokens]


def first_window(context: CheckContext, text: str, length: int, stride: int) -> Sequence[Value]:
    """The inputs of the first window of a text, and its targets."""
    dataset = context.dataset(text, "gpt2", length, stride)
    (row,) = [row for row in range(dataset.windows) if permute(row, dataset.windows, key=(0, 0)) == 0]
    (window,) = dataset.batch(seed=0, step=0, size=dataset.windows, rows=range(row, row + 1)).tolist()
    return [*window[:-1], *window[1:]]


# The model.


def _model_config(config: str, changes: Sequence[str], vocabulary: int) -> ModelConfig:
    return replace(resolve_config(load_params(), config, changes).model, vocab_size=vocabulary)


def parameters(context: CheckContext, config: str, changes: Sequence[str] = ()) -> Sequence[Value]:
    """The number of parameters of a config's model with GPT-2's vocabulary."""
    return [count_parameters(build_model(_model_config(config, changes, GPT2_VOCAB_SIZE), "meta"))]


def gelu_error(context: CheckContext) -> Sequence[Value]:
    """The largest difference between feed-forward, naive and fused, and its formula in plain Python, in float64."""
    x = torch.linspace(-8, 8, 400, dtype=torch.float64).view(50, 8)
    layers = [_filled(FeedForward(8, fused=fused)) for fused in (False, True)]
    hidden = layers[0].expand(x).apply_(lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return [max((layer(x) - layer.contract(hidden)).abs().max().item() for layer in layers)]


def attention_error(context: CheckContext) -> Sequence[Value]:
    """The largest difference between attention, naive and fused, and its formula row by row, in float64."""
    T, C, heads = 12, 32, 4
    D = C // heads
    layers = [_filled(MultiHeadAttention(C, heads, T, qkv_bias=True, fused=fused)) for fused in (False, True)]
    x = torch.randn(1, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    q, k, v = (part.view(T, heads, D).numpy() for part in layers[0].W_qkv(x)[0].split(C, dim=-1))
    outputs = np.empty((T, heads, D))
    for head in range(heads):
        for t in range(T):  # a row of softmax(QKᵀ/√d + M): M is 0 up to t, and -∞ after it, where the weights are 0
            exponentials = np.exp([q[t, head] @ k[s, head] / math.sqrt(D) for s in range(t + 1)])
            outputs[t, head] = exponentials / exponentials.sum() @ v[: t + 1, head]
    expected = layers[0].out_proj(torch.from_numpy(outputs).view(1, T, C))
    return [max((layer(x) - expected).abs().max().item() for layer in layers)]


def _filled(layer: Any) -> Any:
    """The layer with fixed random weights, in float64 and without gradients."""
    generator = torch.Generator().manual_seed(2)
    for weight in layer.double().requires_grad_(False).parameters():
        weight.normal_(0.0, 0.5, generator=generator)
    return layer


@torch.inference_mode()
def residual_init(context: CheckContext, config: str) -> Sequence[Value]:
    """The init std of the output matrices of attention, and of feed-forward, over all layers."""
    model = build_model(_model_config(config, (), vocabulary=256))
    model.initialize(torch.Generator().manual_seed(1))
    weights = dict(model.named_parameters())
    return [
        torch.cat([weight.flatten() for name, weight in weights.items() if name.endswith(ending)]).std().item()
        for ending in ("out_proj.weight", "contract.weight")
    ]


@torch.inference_mode()
def first_loss(context: CheckContext, config: str, vocabulary: int) -> Sequence[Value]:
    """The loss of an untrained model on random tokens, in nats/token."""
    model = build_model(_model_config(config, (), vocabulary)).eval()
    model.initialize(torch.Generator().manual_seed(1))
    batch = torch.randint(0, vocabulary, (8, 33), generator=torch.Generator().manual_seed(2))
    return [model.loss(batch[:, :-1], batch[:, 1:]).item() / batch[:, 1:].numel()]


# N-gram counts.


def _counted(
    context: CheckContext, text: str, tokenizer: str, order: int, smoothing: Callable[[NGrams], Smoothing]
) -> dict[str, float]:
    """The mean loss of the validation split by n-grams of the orders up to `order`, in nats/token, by name."""
    dataset = context.dataset(text, tokenizer)
    start, stop = dataset.split("val")  # the first token is context only, as for a model
    ngrams = NGrams(dataset.tokens, [dataset.split("train")], order, dataset.vocab_size)
    blocks = list(smoothing(ngrams).nats(dataset.tokens, start + 1, stop))
    return {name: sum(float(block[name].sum()) for block in blocks) / dataset.predicted("val") for name in blocks[0]}


def kneser_ney(context: CheckContext, text: str, tokenizer: str, order: int) -> Sequence[Value]:
    """The losses of n-grams with Kneser-Ney smoothing, orders 1 to `order`, in nats/token."""
    return list(_counted(context, text, tokenizer, order, KneserNey).values())


def witten_bell(context: CheckContext, text: str, tokenizer: str, order: int) -> Sequence[Value]:
    """The losses of n-grams with Witten-Bell smoothing, orders 1 to `order`, in nats/token."""
    return list(_counted(context, text, tokenizer, order, WittenBell).values())


def add_one(context: CheckContext, text: str, tokenizer: str) -> Sequence[Value]:
    """The loss of the add-one bigram, in nats/token."""
    return list(_counted(context, text, tokenizer, 2, AddOneBigram).values())


# Trainings, and imported weights.


def best_loss(context: CheckContext, config: str, text: str) -> Sequence[Value]:
    """The validation loss of a run's published weights, in nats/token."""
    return [finished_manifest(context.trained(config, text)).metadata["published_val_loss"]]


def lowest_and_last_loss(context: CheckContext, config: str, text: str) -> Sequence[Value]:
    """The lowest validation loss of a training, and the one it ended with, in nats/token."""
    losses = [line.val_loss for line in read_metrics(context.trained(config, text)) if line.val_loss is not None]
    return [min(losses), losses[-1]]


def greedy(context: CheckContext, model: str, prompt: str, tokens: int) -> Sequence[Value]:
    """The text of the `tokens` most likely tokens after a prompt, by the run `model`."""
    folder = context.runs / model
    if not (folder / MODEL_FILE).is_file():
        raise MissingInput(f"{folder} is missing; `fetch gpt2 gpt2_small` and `import-weights` make it")
    run = load_run(folder, _CPU)
    config = replace(resolve_config(load_params()).generate, temperature=0.0, max_new_tokens=tokens)
    request = Request(run.tokenizer, encode_prompt(run.tokenizer, prompt), config)
    return ["".join(piece for _, piece in stream_text(run.model, [request], _CPU))]


CHECKS: dict[str, Callable[..., Sequence[Value]]] = {
    check.__name__: check
    for check in (
        ids, end_of_text, tokens, tokens_of_parts, words, split, first_window,
        parameters, gelu_error, attention_error, residual_init, first_loss,
        kneser_ney, witten_bell, add_one, best_loss, lowest_and_last_loss, greedy,
    )
}  # fmt: skip
