"""Bytes/token of every tokenizer on a text that it learned from and on one that it did not: bench/results/vocabularies.json.

python bench/vocabularies.py [FILE] [TOKENIZER...]      after: fetch gpt2 moby_dick

FILE is *Moby Dick* if none is named. Vocabularies learn from its first 90%; `char` and `word` know the rest too, since they
would refuse or lose it. A TOKENIZER, a folder with a tokenizer.json or a SentencePiece model, gets a row. The JSON is written
if no FILE is named. SentencePiece's own trainer gets rows if the package sentencepiece is installed.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator

from lib.artifact.provenance import software_versions, timestamp
from lib.data.downloads import VOCABULARY, data_folder
from lib.data.text import open_document
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.bpe import BPETokenizer
from lib.tokenizer.registry import load_tokenizer, make_tokenizer
from lib.tokenizer.sentencepiece_model import read_sentencepiece
from lib.tokenizer.unigram_tokenizer import UnigramTokenizer

RESULTS = Path(__file__).parent / "results" / "vocabularies.json"
SIZES = (4096, 1024)
SPLITS = ("gpt2", "digits", "llama-bpe", "qwen2")  # of the others, smollm and qwen35 differ too little on this text


def main(file: Path | None, saved: list[str]) -> None:
    text = "".join(open_document(file or data_folder("moby_dick.txt") / "moby_dick.txt").pieces())
    first, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    rows = [
        {
            "tokenizer": name,
            "pattern": pattern,
            "vocab_size": tokenizer.vocab_size,
            "first": bytes_per_token(tokenizer, first),
            "held_out": bytes_per_token(tokenizer, held_out),
        }
        for name, pattern, tokenizer in tokenizers(first, text, saved)
    ]
    print(vocabulary_table(rows))
    if file is None:
        results = {"made": timestamp(), "versions": software_versions(), "bytes": len(text.encode("utf-8")), "rows": rows}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def bytes_per_token(tokenizer: Tokenizer, text: str) -> float:
    return len(text.encode("utf-8")) / sum(len(ids) for ids in tokenizer.encode_stream([text]))


def tokenizers(first: str, text: str, saved: list[str]) -> Iterator[tuple[str, str | None, Tokenizer]]:
    """Name, pattern and tokenizer of each row."""
    for path in saved:
        yield path, None, load_tokenizer(Path(path))
    yield "gpt2", "gpt2", make_tokenizer("gpt2", [], data_folder(VOCABULARY))
    for size in SIZES:
        for pattern in SPLITS:
            yield "bpe", pattern, BPETokenizer.train([[first]], vocab_size=size, pattern=pattern)
    for size in SIZES:
        yield "unigram", None, UnigramTokenizer.train([[first]], vocab_size=size)
        if sentencepiece := train_sentencepiece(first, size):
            yield "unigram, by SentencePiece", None, sentencepiece
    for kind in ("word", "char", "bytes"):
        yield kind, None, make_tokenizer(kind, [[text]], Path())


def train_sentencepiece(text: str, size: int) -> Tokenizer | None:
    """A Unigram tokenizer with `size` pieces, learned by SentencePiece; None if it is not installed."""
    try:
        from sentencepiece import SentencePieceTrainer  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError:
        return None
    options = {"model_type": "unigram", "num_threads": 1, "minloglevel": 2, "normalization_rule_name": "identity"}
    with tempfile.TemporaryDirectory() as folder:
        lines, model = Path(folder) / "text.txt", Path(folder) / "unigram.model"
        lines.write_text(text, encoding="utf-8")
        prefix = str(model.with_suffix(""))
        SentencePieceTrainer.train(input=str(lines), model_prefix=prefix, vocab_size=size, byte_fallback=True, **options)
        return read_sentencepiece(model)


def vocabulary_table(rows: list[dict[str, Any]]) -> str:
    """The table of docs/tokens.md."""
    lines = [
        "| tokenizer | pattern | vocabulary V | bytes/token, first 90% | bytes/token, last 10% |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows:
        pattern = f"`{row['pattern']}`" if row["pattern"] else ""
        ratios = f"{row['first']:.3f} | {row['held_out']:.3f}"
        name, _, trainer = row["tokenizer"].partition(",")
        lines.append(f"| `{name}`{trainer and ',' + trainer} | {pattern} | {row['vocab_size']:,} | {ratios} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None, sys.argv[2:])
