"""Cut SentencePiece's test models down to their pieces: `python -m tests.tokenizer.cut_models FOLDER`.

FOLDER is `test` of the source package sentencepiece 0.2.3 (Apache-2.0), and the package has to be installed:

    pip download --no-binary :all: --no-deps sentencepiece==0.2.3 && tar xf sentencepiece-0.2.3.tar.gz

The rules that normalize texts, 0.24 MB, are left out. The goldens are lines that these rules do not change.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from lib.tokenizer.sentencepiece import SentencePieceTokenizer
from lib.tokenizer.sentencepiece_model import fields, read_sentencepiece

CUT = Path(__file__).with_name("models.json")
SOURCE = "sentencepiece 0.2.3 (Apache-2.0), test/botchan_en_*_1000.model and 97th lines of test/botchan.txt"
NAMES = ("botchan_en_unigram_1000", "botchan_en_bpe_1000")
NORMALIZER, CHARSMAP = 3, 2


def varint(value: int) -> bytes:
    """`value` as in a protocol buffer."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: an int, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def cut(model: bytes) -> bytes:
    """`model` with its pieces, training options and normalization, without the rules of the latter."""
    message = fields(model)
    normalizer = {number: values[-1] for number, values in fields(message[NORMALIZER][-1]).items() if number != CHARSMAP}
    normalizer[1] = b"identity"
    inner = b"".join(field(number, value) for number, value in normalizer.items())
    pieces = b"".join(field(1, piece) for piece in message[1])
    return pieces + field(2, message[2][-1]) + field(NORMALIZER, inner)


def read_cut_model(name: str, folder: Path) -> SentencePieceTokenizer:
    """The tokenizer of the cut model `name`, from a file in `folder`."""
    (folder / f"{name}.model").write_bytes(base64.b64decode(json.loads(CUT.read_text(encoding="utf-8"))[name]["model"]))
    return read_sentencepiece(folder / f"{name}.model")


def main(folder: Path) -> None:
    """Write `CUT`."""
    from sentencepiece import SentencePieceProcessor  # type: ignore[import-untyped,import-not-found,unused-ignore]

    lines = (folder / "botchan.txt").read_text(encoding="utf-8").splitlines()[::97]
    lines = [line for line in lines if line.isascii()]
    content: dict[str, Any] = {"source": SOURCE}
    for name in NAMES:
        theirs = SentencePieceProcessor(model_file=str(folder / f"{name}.model"))
        model = cut((folder / f"{name}.model").read_bytes())
        goldens = [(line, theirs.encode(line)) for line in lines]
        content[name] = {"model": base64.b64encode(model).decode("ascii"), "goldens": goldens}
    CUT.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
