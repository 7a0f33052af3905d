"""A dataset: tokens split for training, validation and test, and the windows that batches are made of.

With fractions V for validation and U for test, training ends at floor(n·(1-V-U)), validation at floor(n·(1-U)); the rest is
for test, which is missing if U is 0. A training window starts every `stride` tokens and holds T + 1 ids: T inputs and, shifted
by one, T targets. Nothing is copied: a dataset folder says which tokens, which splits and which windows.

Tokens of conversations are split between two of them, and their windows hold whole conversations (`lib.data.packed`); those of
preferences are split between two pairs, and a window is a pair (`lib.data.pairs`). Labeled texts are shuffled before they are
split, and read one by one (`lib.data.labeled`). Parallel texts are split by their sources (`lib.data.parallel`).

Batch t is a pure function of (seed, t): each epoch visits all windows once in an order of its own, of which only the indices
that the batch needs are computed. So a training resumes at any step at no cost.
"""

import math
import shlex
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Iterator

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.io import write_json
from lib.artifact.manifest import (
    Input,
    Manifest,
    describe_files,
    identity_of,
    input_folder,
    new_manifest,
    read_manifest,
    relative_place,
    verify_files,
    write_manifest,
)
from lib.artifact.record import to_json
from lib.data.description import DATASET_FILE, DatasetDescription
from lib.data.labeled import LabeledTexts, split_labeled
from lib.data.packed import Packed, PackedWindows, check_lengths, pack_texts, text_starts
from lib.data.pairs import Pair, has_pairs, paired, select_pairs
from lib.data.parallel import ParallelBatch, ParallelTexts, split_parallel
from lib.data.shards import BEGINS, Tokens
from lib.data.shuffle import batch_numbers
from lib.errors import MakegptError, UsageError


def build_dataset(
    tokens_folder: Path,
    target: Path,
    *,
    context_length: int,
    stride: int | None,
    val_fraction: float,
    test_fraction: float = 0.0,
    balance: bool = False,
    seed: int = 1,
    strict: bool = False,
    started: str,
) -> Manifest:
    """Write the dataset folder `target` over `tokens_folder`; return its manifest.

    `balance` and `seed` are for labeled texts, see `split_labeled`. Raises MakegptError if a split of the text is too short, or
    the text has ids that its tokenizer lacks. With `strict` also for a conversation that is longer than a window, or a labeled
    text that is longer than the context, which otherwise are cut, and for parallel texts that would be left out.
    """
    tokens = Tokens(tokens_folder)
    if strict and tokens.labels is None and not tokens.is_parallel:
        check_lengths(tokens, context_length + 1)
    tokenizer = tokens.load_tokenizer()
    packed, pairs, labeled, parallel = None, False, None, None
    if tokens.marks is not None and stride is not None:
        raise UsageError(f"build-dataset.stride={stride} is for running text; leave it out for separate texts")
    if tokens.labels is not None:
        labeled = split_labeled(tokens, context_length, val_fraction, test_fraction, balance=balance, seed=seed, strict=strict)
        train, val, test = (int(labeled.lengths(name).sum()) for name in ("train", "val", "test"))
    elif balance:
        raise UsageError(f"--balance is for labeled texts (`tokenize --labels`), which {tokens_folder} does not hold")
    elif tokens.is_parallel:
        assert tokenizer.endoftext is not None
        parallel = split_parallel(tokens, tokenizer.endoftext, context_length, val_fraction, test_fraction, strict=strict)
        train, val, test = (parallel.tokens(name) for name in ("train", "val", "test"))
    elif tokens.marks is None:
        train, val, test = split_sizes(len(tokens), val_fraction, test_fraction)
    else:
        train, val, test, packed, pairs = _pack(tokens, context_length, val_fraction, test_fraction)
    if not labeled and not parallel and (train < context_length + 1 or val < 2 or (test_fraction and test < 2)):
        if test_fraction:
            sizes, least = f"{train} for training, {val} for validation and {test} for test", "validation and test 2 each"
        else:
            sizes, least = f"{train} for training and {val} for validation", "validation 2"
        raise MakegptError(
            f"{tokens_folder} holds {len(tokens)} tokens, {sizes}; one training window takes {context_length + 1} and {least}: "
            "use a longer text, a shorter context length or other fractions"
        )
    description = DatasetDescription(
        tokens=identity_of(tokens.manifest),
        tokenizer=tokenizer.identity(),
        vocab_size=tokenizer.vocab_size,
        context_length=context_length,
        stride=stride or context_length,
        train_tokens=train,
        val_tokens=val,
        test_tokens=test or None,
        packed_windows=len(packed.ends) if packed and not pairs else None,
        pairs=len(packed.ends) if packed and pairs else None,
        labeled=labeled.split if labeled else None,
        parallel=parallel.split if parallel else None,
    )
    with replacing_folder(target, "dataset") as folder:
        write_json(folder / DATASET_FILE, to_json(description))
        parts = packed or labeled or parallel
        files = [DATASET_FILE, *(parts.write(folder) if parts else [])]
        manifest = new_manifest(
            "dataset",
            "build-dataset",
            parameters={
                "context_length": context_length,
                "stride": stride,
                "val_fraction": val_fraction,
                "test_fraction": test_fraction,
            }
            | ({"balance": balance, "seed": seed} if labeled else {}),
            inputs={relative_place(Path(tokens_folder), Path(target)): Input(identity=description.tokens)},
            outputs=describe_files(folder, files),
            metadata={"windows": description.windows, "train_tokens": train, "val_tokens": val, "test_tokens": test}
            | (parts.metadata() if parts else {})
            | ({"pairs": len(packed.ends)} if packed and pairs else {}),
            started=started,
        )
        write_manifest(folder, manifest)
    return manifest


def _pack(tokens: Tokens, context_length: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int, Packed, bool]:
    """The split of tokens of conversations or of pairs, the windows of those for training, and whether they are pairs."""
    starts = text_starts(tokens)
    pairs = has_pairs(tokens, starts)
    noun, size = ("pairs", 2) if pairs else ("conversations", 1)
    firsts = starts[::size]
    train, val, test = split_sizes(len(firsts) - 1, val_fraction, test_fraction)
    if train < 1 or val < 1 or (test_fraction and test < 1):
        raise MakegptError(
            f"{tokens.folder} holds {len(firsts) - 1} {noun}, {train} for training, {val} for validation and {test} for "
            "test; each split takes one: use more {noun} or other fractions"
        )
    packed = (select_pairs if pairs else pack_texts)(tokens, starts[: size * train + 1], context_length + 1)
    if not len(packed.ends):
        raise MakegptError(
            f"none of the {noun} of {tokens.folder} has an answer within {context_length + 1} tokens; use a longer context"
        )
    ends = firsts[[train, train + val, train + val + test]]
    return int(ends[0]), int(ends[1] - ends[0]), int(ends[2] - ends[1]), packed, pairs


def split_sizes(tokens: int, val_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """How many of a text's tokens are for training, validation and test, in this order; exact in decimals."""
    val, test = Decimal(str(val_fraction)), Decimal(str(test_fraction))
    val_start, test_start = math.floor(tokens * (1 - val - test)), math.floor(tokens * (1 - test))
    return val_start, test_start - val_start, tokens - test_start


class Dataset:
    """A dataset folder, open for reading; its tokens are verified when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, "dataset")
        verify_files(self.folder, self.manifest.outputs)
        description = DatasetDescription.read(self.folder / DATASET_FILE)
        self.context_length = description.context_length
        self.stride = description.stride
        self.train_tokens = description.train_tokens
        self.val_tokens = description.val_tokens
        self.test_tokens = description.test_tokens or 0
        self.vocab_size = description.vocab_size
        self.tokenizer_identity = description.tokenizer
        self.windows = description.windows
        self.tokens = Tokens(input_folder(self.folder, self.manifest, f"rebuild it with `{self._command(self.folder)}`"))
        used = self.train_tokens + self.val_tokens + self.test_tokens
        by_text = description.labeled or description.parallel
        if (used != len(self.tokens) and not by_text) or self.windows < 1:
            raise MakegptError(
                f"{self.folder / DATASET_FILE} does not fit its {len(self.tokens)} tokens; build the dataset again"
            )
        self.tokens.check_ids(self.vocab_size)
        self.has_pairs = description.pairs is not None
        self.packed = Packed.read(self.folder) if description.packed_windows or self.has_pairs else None
        if (
            (self.packed is None) != (self.tokens.marks is None or by_text is not None)
            or (description.labeled is None) != (self.tokens.labels is None)
            or (description.parallel is None) == self.tokens.is_parallel
        ):
            raise MakegptError(f"{self.folder / DATASET_FILE} does not fit its tokens; build the dataset again")
        self.labeled = (
            LabeledTexts.open(self.folder, self.tokens, description.labeled, self.context_length)
            if description.labeled
            else None
        )
        self.parallel = ParallelTexts.open(self.folder, self.tokens, description.parallel) if description.parallel else None

    def _command(self, target: Path, **changes: float) -> str:
        """The command that builds this dataset in `target`, wherever its tokens are; `changes`: its new parameters."""
        parameters = self.manifest.parameters | changes
        options = (f"--{name.replace('_', '-')} {value}" for name, value in parameters.items() if value)
        return " ".join(["build-dataset TOKENS -o", shlex.quote(str(target)), *options])

    def identity(self) -> str:
        """A hash of the split, the windows and the tokens themselves."""
        return identity_of(self.manifest)

    def texts(self) -> list[str]:
        """The SHA-256 of each document of its tokens, in their order."""
        return self.tokens.manifest.texts

    def window_starts(self, seed: int, step: int, size: int, rows: range | None = None) -> np.ndarray:
        """Where the windows of batch `step` (from 0) of `size` windows start, or only these `rows` of it: (B,)."""
        return np.array(self.window_numbers(seed, step, size, rows)) * self.stride

    def window_numbers(self, seed: int, step: int, size: int, rows: range | None = None) -> list[int]:
        """The numbers of the windows of batch `step` (from 0) of `size` windows, or only of these `rows` of it."""
        return batch_numbers(self.windows, seed, step, size, rows)

    def packed_batch(self, seed: int, step: int, size: int, rows: range | None = None) -> PackedWindows:
        """Batch `step` (from 0) of `size` packed windows, or only these `rows` of it."""
        assert self.packed is not None
        return self.packed.windows(self.tokens, self.window_numbers(seed, step, size, rows), self.context_length + 1)

    def packed_targets(self, seed: int, step: int, size: int) -> int:
        """How many tokens of `packed_batch` are learned."""
        assert self.packed is not None
        return self.packed.trained(self.tokens, self.window_numbers(seed, step, size))

    def parallel_batch(self, seed: int, step: int, size: int, rows: range | None = None) -> ParallelBatch:
        """Batch `step` (from 0) of `size` pairs for training, or only these `rows` of it: the shortest pairs come first."""
        assert self.parallel is not None
        return self.parallel.train_batch(self.window_numbers(seed, step, size), rows)

    def text_ranges(self, name: str) -> Iterator[tuple[int, int]]:
        """Where each conversation of a split begins and ends, in order."""
        assert self.tokens.marks is not None
        start, stop = self.split(name)
        starts = start + np.flatnonzero(self.tokens.marks.read(start, stop) & BEGINS)
        yield from pairwise([*starts.tolist(), stop])

    def texts_of(self, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The conversations of a split, in order: their ids and which of them are learned; cut to T + 1."""
        for begin, end in self.text_ranges(name):
            end = min(end, begin + self.context_length + 1)
            yield self.tokens.read(begin, end), self.tokens.trained(begin, end)

    def pairs_of(self, name: str) -> list[Pair]:
        """The pairs of a split, in order, their texts cut to T + 1; without those that then have nothing to compare."""
        return paired(self.texts_of(name))

    def batch(self, seed: int, step: int, size: int, rows: range | None = None) -> np.ndarray:
        """Batch `step` (from 0) of `size` training windows, or only these `rows` of it: ids, (B, T + 1)."""
        return self.read_windows(self.window_starts(seed, step, size, rows))

    def read_windows(self, starts: np.ndarray) -> np.ndarray:
        """The windows that start at `starts`, (B,): ids, (B, T + 1)."""
        return np.stack([self.tokens.read(start, start + self.context_length + 1) for start in starts])

    def train_ids(self) -> np.ndarray:
        """The distinct ids of the training split, sorted: (U,) int64."""
        counts = np.zeros(self.vocab_size, np.int64)
        for ids in self.tokens.blocks(*self.split("train")):
            counts += np.bincount(ids, minlength=self.vocab_size)
        return np.flatnonzero(counts)

    def split(self, name: str) -> tuple[int, int]:
        """The range of a split's ids, (start, stop). The first of them is context only and not predicted.

        `name`: train, val or test. MakegptError if the dataset has no test split. Not of labeled or parallel texts.
        """
        assert self.labeled is None
        assert self.parallel is None
        if name == "test" and not self.test_tokens:
            raise MakegptError(
                f"{self.folder} has no test split; build a dataset that has one, "
                f"`{self._command(Path('DATASET'), test_fraction=0.1)}`, and train on it"
            )
        val_stop = self.train_tokens + self.val_tokens
        return {"train": (0, self.train_tokens), "val": (self.train_tokens, val_stop), "test": (val_stop, len(self.tokens))}[
            name
        ]

    def predicted(self, name: str) -> int:
        """How many tokens of a split are predicted."""
        start, stop = self.split(name)
        return stop - start - 1

    def check_context(self, context_length: int) -> None:
        """Refuse a model whose context length differs from that of the windows."""
        if context_length != self.context_length:
            raise UsageError(
                f"the model's context_length is {context_length}, but {self.folder} has windows of {self.context_length}; "
                f"run `build-dataset` with --context-length {context_length}"
            )
