"""GPT-2's byte-pair encoding: 50,256 byte sequences and `<|endoftext|>` (Radford et al. 2019, section 2.2).

It is read from the two files as released, and never uses the network here.
"""

from pathlib import Path
from typing import Any, Iterable, Self, Sequence

from lib.artifact.strict_json import load_json
from lib.errors import MakegptError
from lib.tokenizer.base import ENDOFTEXT
from lib.tokenizer.byte_alphabet import BYTE_OF, byte_string
from lib.tokenizer.byte_level import ByteLevelBPE, saved_tokens

#: Tokens of the released vocabulary: 256 bytes, 50,000 merges and `<|endoftext|>`.
GPT2_VOCAB_SIZE = 50_257


class GPT2Tokenizer(ByteLevelBPE):
    kind = "gpt2"

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> Self:
        return cls(saved_tokens(saved))

    @classmethod
    def train(cls, documents: Iterable[Iterable[str]], data: Path, vocab_size: int | None = None) -> Self:
        return cls(read_released(data / "gpt2" / "vocab.bpe", data / "gpt2" / "encoder.json"))


def read_released(vocab_bpe: Path, encoder_json: Path) -> list[bytes]:
    """The byte sequences of all ids but the last: the merges of one file, checked against the ids of the other.

    The two files as released with GPT-2, or others in their format.
    """
    try:
        merges = vocab_bpe.read_text(encoding="utf-8").splitlines()[1:]
        ids = load_json(encoder_json)
    except ValueError:
        raise MakegptError(f"{vocab_bpe} or {encoder_json} is damaged; fetch both again") from None
    except FileNotFoundError as error:
        raise MakegptError(f"{error.filename} is missing; fetch GPT-2's vocabulary with `fetch gpt2`") from None
    try:
        return apply_merges([tuple(merge.split()) for merge in merges if merge], ids)
    except ValueError:
        raise MakegptError(f"{vocab_bpe} and {encoder_json} do not match; fetch both again") from None


def apply_merges(merges: Iterable[Sequence[str]], ids: dict[str, int], order: Iterable[int] = BYTE_OF.values()) -> list[bytes]:
    """The byte sequences of all ids but the last: the 256 single bytes, then one for each merge, in the order of their ranks.

    `order`: the bytes as they are numbered.

    ValueError unless `ids` numbers these tokens in this order, then `<|endoftext|>`.
    """
    written = [*(byte_string(bytes([byte])) for byte in order), *("".join(merge) for merge in merges)]
    if ids != {token: id for id, token in enumerate([*written, ENDOFTEXT])} or not set("".join(written)) <= BYTE_OF.keys():
        raise ValueError("the ids do not match the merges")
    return [bytes(BYTE_OF[character] for character in token) for token in written]
