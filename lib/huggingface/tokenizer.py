"""Tokenizers in Hugging Face's layout: one tokenizer.json, a byte-pair encoding and how it splits text.

`gpt2` is GPT-2's own, `bpe` the same with other merges; `bytes` and `char` have no merges. `word` has no such form.
"""

import json
from pathlib import Path
from typing import Any

from lib.artifact.io import read_json
from lib.errors import MakegptError
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.byte_alphabet import BYTE_OF, byte_string
from lib.tokenizer.byte_level import ByteLevelBPE, merges_of
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer, apply_merges
from lib.tokenizer.patterns import PATTERNS
from lib.tokenizer.registry import load_tokenizer

HF_TOKENIZER_FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
_VOCAB, _MERGES = "vocab.json", "merges.txt"
_ADDED, _SPECIAL = "added_tokens.json", "special_tokens_map.json"

#: How a text is split before merges: into GPT-2's words, or not at all; both in bytes.
_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_WHOLE = _WORDS | {"use_regex": False}


def to_hf_tokenizer(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The contents of their files, by name; None if the tokenizer has no such form."""
    match tokenizer:
        case ByteLevelBPE():
            merges = [[byte_string(left), byte_string(right)] for left, right in merges_of(tokenizer.tokens)]
            content = _tokenizer_json(
                [byte_string(token) for token in tokenizer.tokens], merges, _split(tokenizer.pattern), _WORDS
            )
            special = {"id": tokenizer.endoftext, "content": ENDOFTEXT, "special": True, "normalized": False}
            matching = {"single_word": False, "lstrip": False, "rstrip": False}
            content["added_tokens"] = [special | matching]
            content["model"]["vocab"][ENDOFTEXT] = tokenizer.endoftext
        case BytesTokenizer():
            content = _tokenizer_json([byte_string(bytes([byte])) for byte in range(256)], [], _WHOLE, _WHOLE)
        case CharTokenizer():
            content = _tokenizer_json(list(tokenizer.characters), [], None, {"type": "Fuse"})
        case _:
            return None
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if tokenizer.endoftext is not None:
        settings |= {"bos_token": ENDOFTEXT, "eos_token": ENDOFTEXT, "unk_token": ENDOFTEXT}
    return {HF_TOKENIZER_FILE: content, SETTINGS: settings}


def _split(pattern: str) -> dict[str, Any]:
    """Their pre_tokenizer for a name of `PATTERNS`."""
    if pattern == "gpt2":
        return _WORDS
    split = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _WHOLE]}


def _pattern_of(pre_tokenizer: Any) -> str | None:
    """The name of the pattern that `_split` gives, "" if they do not split, None if it is another."""
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    *splits, last = steps
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if not splits:
        return "gpt2" if last.get("use_regex", True) else ""
    return next((name for name in PATTERNS if name != "gpt2" and splits == _split(name)["pretokenizers"][:-1]), None)


def _tokenizer_json(tokens: list[str], merges: list[list[str]], pre_tokenizer: Any, decoder: Any) -> dict[str, Any]:
    """Their tokenizer.json: `tokens` in the order of their ids, `merges` in that of their ranks."""
    affixes = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    choices = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    vocab = {token: id for id, token in enumerate(tokens)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {"type": "BPE", **affixes, **choices, "vocab": vocab, "merges": merges},
    }


def load_hf_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer of their `folder`: vocab.json and merges.txt, or tokenizer.json, theirs or ours; None if there is none.

    Raises MakegptError if it is not supported.
    """
    if not (names := hf_tokenizer_files(folder)):
        return None
    path = folder / names[0]
    try:
        saved = read_json(path)
        if names == [_VOCAB, _MERGES]:
            lines = (folder / _MERGES).read_text(encoding="utf-8").splitlines()
            merges = [line for line in lines if line and not line.startswith("#version")]
            model = {"type": "BPE", "vocab": saved, "merges": merges}
            saved = {"pre_tokenizer": _WORDS, "model": model, "added_tokens": _added(folder)}
        return load_tokenizer(path) if "kind" in saved else from_hf_tokenizer(saved)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise MakegptError(
            f"{path} is not supported ({error}); it must be GPT-2's byte-pair encoding, "
            f"with ids in GPT-2's order (bytes, merges, {ENDOFTEXT}), or written by `export-weights`"
        ) from None


def _added(folder: Path) -> list[dict[str, Any]]:
    """The tokens that were added to a vocab.json, as a tokenizer.json describes them."""
    settings, named, ids = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in (SETTINGS, _SPECIAL, _ADDED)
    )
    added_tokens = settings.get("added_tokens_decoder", {}).values()
    special = {token["content"] for token in added_tokens if token.get("special")}
    for value in named.values():
        special |= {
            entry["content"] if isinstance(entry, dict) else entry for entry in (value if isinstance(value, list) else [value])
        }
    return [{"id": id, "content": content, "special": content in special} for content, id in ids.items()]


def hf_tokenizer_files(folder: Path) -> list[str]:
    """The names of the files that `load_hf_tokenizer` reads."""
    for names in ([_VOCAB, _MERGES], [HF_TOKENIZER_FILE]):
        if all((folder / name).is_file() for name in names):
            return names
    return []


def from_hf_tokenizer(saved: dict[str, Any]) -> Tokenizer:
    """The tokenizer that their tokenizer.json describes; ValueError, KeyError or the like if it is another.

    One with GPT-2's pattern and numbering of bytes is `gpt2`, whatever its merges; another of ours is `bpe`.

    Special tokens that were added after GPT-2's own, such as [PAD], are left out: they do not occur in texts.
    """
    model, pre_tokenizer = saved["model"], saved.get("pre_tokenizer")
    if model["type"] != "BPE" or saved.get("normalizer"):
        raise ValueError(f"its model is {model['type']}, its normalizer {saved.get('normalizer')}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback", "ignore_merges"):
        if model.get(name):
            raise ValueError(f"its model has {name}")
    added = saved.get("added_tokens") or []
    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    if pre_tokenizer is None and not merges:
        characters = sorted(ids, key=ids.__getitem__)
        if [ids[character] for character in characters] != list(range(len(ids))) or any(len(entry) != 1 for entry in ids):
            raise ValueError("its vocabulary is not one of single characters")
        return CharTokenizer("".join(characters))
    if (pattern := pre_tokenizer and _pattern_of(pre_tokenizer)) is None:
        raise ValueError(f"its pre_tokenizer is {json.dumps(pre_tokenizer)}")
    if pattern == "":
        if merges or ids != BYTE_OF:
            raise ValueError("it does not split text into words")
        return BytesTokenizer()
    own = {content: id for content, id in ids.items() if id < len(BYTE_OF) + len(merges) + 1}
    special = {token["content"] for token in added if token.get("special")}
    if ordinary := sorted(ids.keys() - own.keys() - special):
        raise ValueError(f"it has {len(ordinary)} added tokens that are not special, such as {ordinary[0]!r}")
    by_value = own.get("\u0100") == 0  # the character for byte 0, which in GPT-2's order comes after the printable ones
    try:
        if by_value or pattern != GPT2Tokenizer.pattern:
            return BPETokenizer(apply_merges(merges, own, TIES["bytes" if by_value else "hf"]), pattern)
        return GPT2Tokenizer(apply_merges(merges, own))
    except ValueError:
        raise ValueError("its ids are not bytes, merges and the end-of-text token, in this order") from None
