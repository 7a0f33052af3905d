"""Learning byte-pair vocabularies on Moby Dick: how long it takes next to other trainers.

python bench/bpe.py [ROUNDS]

Learning reads the first 90% of the text. All trainers get the same text and pattern, in turn, and the median of their rounds is
printed; Hugging Face's trainer uses as many threads as RAYON_NUM_THREADS allows. One that is not installed is left out. Then
the memory of counting the words of a gigabyte of text, by its peak and the number of distinct words, and the time and the peak
memory of `tokenize --train bpe` on it; with 0 ROUNDS these alone.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator

import torch

from lib.data.downloads import data_folder
from lib.data.text import open_document
from lib.device.hardware import peak_memory
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.merges import BYTES, count_words, learn_merges
from lib.tokenizer.patterns import PATTERNS

CPU = torch.device("cpu")
SIZES = (1024, 4096)
LONG = 1 << 30  # bytes of the long text


def main(rounds: int) -> None:
    text = "".join(open_document(data_folder("moby_dick.txt") / "moby_dick.txt").pieces())
    first = text[: len(text) * 9 // 10]
    for size in SIZES if rounds else ():
        learning_times(first, size, rounds)
    print()
    memory(first)
    command(first)


def learning_times(text: str, size: int, rounds: int) -> None:
    """Print the median time of each trainer for a vocabulary of `size` tokens, and its ratio to ours."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, learn in trainers().items():
            start = time.perf_counter()
            learn(text, size)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    ours = statistics.median(seconds["makegpt"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{size:5,} tokens  {name:12} {median:6.2f} s ({min(times):.2f} to {max(times):.2f})  {ours / median:5.2f}")


def trainers() -> dict[str, Callable[[str, int], object]]:
    """What learns `size` tokens of a text, by name."""
    learners: dict[str, Callable[[str, int], object]] = {"makegpt": learn_ours}
    try:
        import tokenizers  # noqa: F401

        learners["tokenizers"] = learn_hugging_face
    except ImportError:
        pass
    try:
        import rustbpe  # noqa: F401

        learners["rustbpe"] = learn_rustbpe
    except ImportError:
        pass
    return learners


def learn_ours(text: str, size: int) -> object:
    return BPETokenizer.train([[text]], vocab_size=size + 1)


def learn_hugging_face(text: str, size: int) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def learn_rustbpe(text: str, size: int) -> object:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator([text], size, pattern=PATTERNS["gpt2"])
    return tokenizer


def memory(text: str) -> None:
    """Print the peak memory of counting and learning from `LONG` bytes, and how many distinct words they have."""
    start = time.perf_counter()
    before = peak_memory(CPU)
    words = count_words([renewed(text)], "gpt2")
    counted = time.perf_counter() - start
    merges = learn_merges(words, SIZES[-1] - BYTES)
    print(
        f"{LONG / 1e9:.2f} GB of text, {len(words):,} distinct words: counted in {counted:.0f} s, {len(merges):,} merges in "
        f"{time.perf_counter() - start - counted:.0f} s, {(peak_memory(CPU) - before) / 1e6:.0f} MB of memory"
    )


def command(text: str) -> None:
    """Print the time and the peak memory of `tokenize --train bpe` on `LONG` bytes, and the size of the vocabulary."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as folder:
        path = Path(folder) / "long.txt"
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(renewed(text))
        command = [sys.executable, "-m", "stages.tokenize", str(path), "--train", "bpe", "--vocab-size", str(SIZES[-1])]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "-o", str(Path(folder) / "vocabulary")])
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        print(
            f"{path.stat().st_size / 1e9:.2f} GB of text, a vocabulary of {SIZES[-1]:,}: "
            f"{time.perf_counter() - start:.0f} s, {usage.ru_maxrss / 1e3:.0f} MB of memory"
        )


def renewed(text: str) -> Iterator[str]:
    """`LONG` bytes of `text` in pieces; each repetition marks every sixtieth word with letters of its own."""
    words, size, number = text.encode("ascii", "ignore").decode().split(" "), 0, 0
    while size < LONG:
        number += 1
        mark = "".join(chr(97 + number // 26**place % 26) for place in range(3))
        piece = " ".join(word + mark if at % 60 == 0 and word.isalpha() else word for at, word in enumerate(words)) + " "
        size += len(piece)
        yield piece


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
