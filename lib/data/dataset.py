"""A dataset: a corpus of tokens split for training and validation, and the windows batches are made of.

The first floor(n·(1-F)) tokens are for training, the rest for validation. Training windows start every
`stride` tokens and hold T + 1 ids: T inputs and, one to the right, T targets. Nothing is copied: a
dataset folder says which tokens, which split, which windows.

Batch t is a pure function of (seed, t): each epoch goes once through all windows in an order of its own,
computed for the windows needed and stored nowhere, so that resuming at any step costs nothing.
"""

import shlex
from decimal import Decimal
from pathlib import Path

import numpy as np

from lib.artifact.folders import replacing_folder
from lib.artifact.io import read_json, write_json
from lib.artifact.json_shape import POSITIVE, JsonShape, first_mismatch
from lib.artifact.manifest import (
    MANIFEST,
    Manifest,
    describe_files,
    identity_of,
    input_folder,
    read_manifest,
    relative_place,
    verify_files,
)
from lib.artifact.provenance import new_manifest
from lib.data.shards import Tokens
from lib.data.shuffle import permute
from lib.errors import MakegptError, UsageError

DATASET_FILE = "dataset.json"

_DESCRIPTION: JsonShape = {
    **dict.fromkeys(("tokens", "tokenizer"), str),
    **dict.fromkeys(("context_length", "stride", "train_tokens", "val_tokens", "vocab_size"), POSITIVE),
}


def build_dataset(
    tokens_folder: Path, target: Path, *, context_length: int, stride: int | None, val_fraction: float, started: str
) -> Manifest:
    """Write the dataset folder `target` over `tokens_folder`; return its manifest.

    Raises MakegptError where the text is shorter than one window, or holds ids its tokenizer has not.
    """
    tokens = Tokens(tokens_folder)
    made = tokens.load_tokenizer()
    train = int(len(tokens) * (1 - Decimal(str(val_fraction))))
    val = len(tokens) - train
    if train < context_length + 1 or val < 2:
        raise MakegptError(
            f"{tokens_folder} holds {len(tokens)} tokens, {train} for training and {val} for validation; one training "
            f"window takes {context_length + 1} and validation 2: give a longer text or a shorter context length"
        )
    largest = max(int(block.max()) for block in tokens.blocks(0, len(tokens)))
    if largest >= made.vocab_size:
        raise MakegptError(
            f"{tokens_folder} holds the id {largest}, but its tokenizer has {made.vocab_size} tokens; tokenize again"
        )
    windows = count_windows(train, context_length, stride or context_length)
    description = {
        "tokens": identity_of(tokens.manifest),
        "tokenizer": made.identity(),
        "vocab_size": made.vocab_size,
        "context_length": context_length,
        "stride": stride or context_length,
        "train_tokens": train,
        "val_tokens": val,
    }
    with replacing_folder(target, "dataset") as folder:
        write_json(folder / DATASET_FILE, description)
        manifest = new_manifest(
            "dataset",
            "build-dataset",
            parameters={"context_length": context_length, "stride": stride, "val_fraction": val_fraction},
            inputs={relative_place(Path(tokens_folder), Path(target)): {"identity": description["tokens"]}},
            outputs=describe_files(folder, [DATASET_FILE]),
            metadata={"windows": windows} | description,
            started=started,
        )
        write_json(folder / MANIFEST, manifest)
    return manifest


def count_windows(train_tokens: int, context_length: int, stride: int) -> int:
    """How many windows of context_length + 1 tokens start every `stride` tokens."""
    return (train_tokens - context_length - 1) // stride + 1


class Dataset:
    """A dataset folder, open for reading; its tokens are verified when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder, "dataset")
        verify_files(self.folder, self.manifest["outputs"])
        description = read_json(self.folder / DATASET_FILE)
        if (place := first_mismatch(description, _DESCRIPTION)) is not None:
            raise MakegptError(
                f"{self.folder / DATASET_FILE} is damaged at {place or 'its beginning'}; build the dataset again"
            )
        self.context_length: int = description["context_length"]
        self.stride: int = description["stride"]
        self.train_tokens: int = description["train_tokens"]
        self.val_tokens: int = description["val_tokens"]
        self.vocab_size: int = description["vocab_size"]
        self.tokenizer_identity: str = description["tokenizer"]
        self.windows = count_windows(self.train_tokens, self.context_length, self.stride)
        self.tokens = Tokens(
            input_folder(self.folder, self.manifest, f"`{self._rebuild()}` builds it on the right TOKENS again")
        )
        if self.train_tokens + self.val_tokens != len(self.tokens) or self.windows < 1:
            raise MakegptError(
                f"{self.folder / DATASET_FILE} does not fit its {len(self.tokens)} tokens; build the dataset again"
            )

    def _rebuild(self) -> str:
        """The command that builds the same dataset over the same tokens, wherever they are."""
        options = (f"--{name.replace('_', '-')} {value}" for name, value in self.manifest["parameters"].items() if value)
        return " ".join(["build-dataset TOKENS -o", shlex.quote(str(self.folder)), *options])

    def identity(self) -> str:
        """A hash of the split, the windows and the tokens themselves."""
        return identity_of(self.manifest)

    def texts(self) -> list[str]:
        """The SHA-256 of each document that its tokens are of, in their order."""
        return [document["sha256"] for document in self.tokens.manifest["inputs"].values()]

    def batch(self, seed: int, step: int, size: int, rows: range | None = None) -> np.ndarray:
        """Batch `step` (from 0) of `size` training windows, or these `rows` of it: ids, (B, T + 1)."""
        numbers = step * size + np.array(range(size) if rows is None else rows)
        epochs, places = np.divmod(numbers, self.windows)
        starts = [
            permute(int(place), self.windows, key=(seed, int(epoch))) * self.stride
            for epoch, place in zip(epochs, places, strict=True)
        ]
        return np.stack([self.tokens.read(start, start + self.context_length + 1) for start in starts])

    def split(self, name: str) -> tuple[int, int]:
        """Where a split's ids stand among all: (start, stop). The first of them is context only and not predicted."""
        return {"train": (0, self.train_tokens), "val": (self.train_tokens, len(self.tokens))}[name]

    def predicted(self, name: str) -> int:
        """How many tokens of a split are predicted."""
        start, stop = self.split(name)
        return stop - start - 1

    def check_context(self, context_length: int) -> None:
        """Refuse a model whose context is not as long as the windows it would be trained on."""
        if context_length != self.context_length:
            raise UsageError(
                f"the model's context_length is {context_length}, but {self.folder} has windows of {self.context_length}; "
                f"run `build-dataset` with --context-length {context_length}"
            )
