"""Tokenizers in Hugging Face's layout: one tokenizer.json, how it splits text and what it makes of the parts.

`gpt2` is GPT-2's own, `bpe` the same with other merges, `pretrained` any byte-level one; `bytes` and `char` have no merges;
`word` is a list of words.
"""

from pathlib import Path
from typing import Any, Iterable

from lib.artifact.io import read_json
from lib.chat.template import IM_END, IM_START
from lib.errors import MakegptError
from lib.huggingface.pre_tokenizer import BYTES, BYTES_OF_WORDS, from_pre_tokenizer, to_pre_tokenizer
from lib.tokenizer.base import ENDOFTEXT, Tokenizer
from lib.tokenizer.bpe import TIES, BPETokenizer
from lib.tokenizer.byte_alphabet import BYTE_OF, byte_string
from lib.tokenizer.byte_level import ByteLevelBPE, merges_of
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.gpt2 import GPT2Tokenizer, apply_merges
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS, steps_of
from lib.tokenizer.pretrained import PretrainedTokenizer, from_merges
from lib.tokenizer.registry import load_tokenizer
from lib.tokenizer.word import UNKNOWN, WordTokenizer

HF_TOKENIZER_FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
_VOCAB, _MERGES = "vocab.json", "merges.txt"
_ADDED, _SPECIAL = "added_tokens.json", "special_tokens_map.json"

#: How `word` splits a text: marks are words, and whitespace is between words; a space before each word but the first, and none
#: before a mark.
_WORDS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "--|[,.:;?_!\"()']"}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": r"[\s\x1c-\x1f]+"}, "behavior": "Removed", "invert": False},
    ],
}
_SENTENCE = {
    "type": "Sequence",
    "decoders": [
        {"type": "WordPiece", "prefix": "\n", "cleanup": False},  # no word begins with a line break
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": "\\s+(?=[,.:;?!\"()'])"}, "content": ""},
    ],
}


def to_hf_tokenizer(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The contents of their files, by name; None if the tokenizer has no such form."""
    match tokenizer:
        case ByteLevelBPE():
            tokens = [*map(byte_string, tokenizer.tokens), ENDOFTEXT]
            cut = to_pre_tokenizer([PATTERNS[tokenizer.pattern]])
            content = _tokenizer_json(_bpe(tokens, merges_of(tokenizer.tokens)), cut, BYTES_OF_WORDS)
        case PretrainedTokenizer():
            plain = {*tokenizer.special, *tokenizer.added}
            tokens = [token.decode("utf-8") if id in plain else byte_string(token) for id, token in enumerate(tokenizer.tokens)]
            pattern = tokenizer.pattern
            cut = to_pre_tokenizer(steps_of(LLAMA_CPP_NAMES[pattern]) if isinstance(pattern, str) else pattern)
            merges, whole_pieces = tokenizer.merges()
            content = _tokenizer_json(_bpe(tokens, merges) | {"ignore_merges": whole_pieces}, cut, BYTES)
            content["normalizer"] = {"type": "NFC"} if tokenizer.nfc else None
        case BytesTokenizer():
            tokens = [byte_string(bytes([byte])) for byte in range(256)]
            content = _tokenizer_json(_bpe(tokens, []), BYTES, BYTES)
        case CharTokenizer():
            tokens = list(tokenizer.characters)
            content = _tokenizer_json(_bpe(tokens, []), None, {"type": "Fuse"})
        case WordTokenizer():
            tokens = tokenizer.words
            model = {"type": "WordLevel", "vocab": _numbered(tokens), "unk_token": UNKNOWN}
            content = _tokenizer_json(model, _WORDS, _SENTENCE)
        case _:
            return None
    special = set(tokenizer.special_ids())
    added = special | set(tokenizer.added if isinstance(tokenizer, PretrainedTokenizer) else ())
    matching = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [{"id": id, "content": tokens[id], "special": id in special} | matching for id in sorted(added)]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if tokenizer.endoftext is not None:
        end = tokens[tokenizer.endoftext]
        unknown = end if tokenizer.unknown is None else tokens[tokenizer.unknown]
        settings |= {"bos_token": end, "eos_token": end, "unk_token": unknown}
    return {HF_TOKENIZER_FILE: content, SETTINGS: settings}


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _bpe(tokens: list[str], merges: Iterable[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Their model with `tokens` in the order of their ids, `merges` in that of their ranks."""
    affixes = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    choices = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    pairs = [[byte_string(left), byte_string(right)] for left, right in merges]
    return {"type": "BPE", **affixes, **choices, "vocab": _numbered(tokens), "merges": pairs}


def _tokenizer_json(model: dict[str, Any], pre_tokenizer: Any, decoder: Any) -> dict[str, Any]:
    """Their tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
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
            return _in_gpt2s_order(BYTES_OF_WORDS, model, _added(folder))
        return load_tokenizer(path) if "kind" in saved else from_hf_tokenizer(saved, _endoftext(folder))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise MakegptError(
            f"{path} is not supported ({error}); it must be a byte-level BPE, with merges in the order of ids, "
            "or written by `export-weights`"
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


def _endoftext(folder: Path) -> str | None:
    """The token that ends a text, by the settings in `folder`."""
    token = read_json(folder / SETTINGS).get("eos_token") if (folder / SETTINGS).is_file() else None
    return token["content"] if isinstance(token, dict) else token


def from_hf_tokenizer(saved: dict[str, Any], endoftext: str | None = None) -> Tokenizer:
    """The tokenizer that their tokenizer.json describes; ValueError, KeyError or the like if it is not supported.

    One with GPT-2's pattern and numbering of bytes is `gpt2`, whatever its merges; another of ours is `bpe`; any other
    byte-level one is `pretrained`, with `endoftext` as the name of the token that ends a text.

    Special tokens that were added after GPT-2's own, such as [PAD], are left out: they do not occur in texts. What a
    post_processor adds around a text is not part of the tokenizer here.
    """
    model, pre_tokenizer, normalizer = saved["model"], saved.get("pre_tokenizer"), saved.get("normalizer")
    added = saved.get("added_tokens") or []
    if model["type"] == "WordLevel" and pre_tokenizer == _WORDS and model["unk_token"] == UNKNOWN and not normalizer:
        return WordTokenizer(_tokens_by_id(model["vocab"]))
    if model["type"] != "BPE":
        raise ValueError(f"its model is {model['type']}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout", "byte_fallback"):
        if model.get(name):
            raise ValueError(f"its model has {name}")
    if normalizer and normalizer["type"] == "Sequence" and len(normalizer["normalizers"]) == 1:
        normalizer = normalizer["normalizers"][0]
    if normalizer and normalizer["type"] != "NFC":
        raise ValueError(f"its normalizer is {normalizer}")
    if pre_tokenizer is None and not model["merges"]:
        characters = _tokens_by_id(model["vocab"] | {token["content"]: token["id"] for token in added})
        if any(len(character) != 1 for character in characters) or normalizer:
            raise ValueError("its vocabulary is not one of single characters")
        return CharTokenizer("".join(characters))
    if pre_tokenizer is None:
        raise ValueError("its pre_tokenizer is None")
    try:
        if normalizer or model.get("ignore_merges") or any(token["content"] in (IM_START, IM_END) for token in added):
            raise ValueError("it normalizes texts, ignores merges, or has the tags of a chat template")
        return _in_gpt2s_order(pre_tokenizer, model, added)
    except ValueError as error:
        try:
            return _pretrained(pre_tokenizer, model, added, endoftext, nfc=bool(normalizer))
        except ValueError as other:
            raise other if str(other).startswith("its") else ValueError(f"{error}, and {other}") from None


def _merges(model: dict[str, Any]) -> list[list[str]]:
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]


def _in_gpt2s_order(pre_tokenizer: Any, model: dict[str, Any], added: list[dict[str, Any]]) -> Tokenizer:
    """A tokenizer whose ids are bytes, merges and the end-of-text token; ValueError if it is none."""
    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    steps, merges = from_pre_tokenizer(pre_tokenizer), _merges(model)
    if not steps:
        if merges or ids != BYTE_OF:
            raise ValueError("it does not split text into words")
        return BytesTokenizer()
    pattern = next((name for name, step in PATTERNS.items() if steps == [step]), None)
    own = {content: id for content, id in ids.items() if id < len(BYTE_OF) + len(merges) + 1}
    special = {token["content"] for token in added if token.get("special")}
    if ordinary := sorted(ids.keys() - own.keys() - special):
        raise ValueError(f"it has {len(ordinary)} added tokens that are not special, such as {ordinary[0]!r}")
    by_value = own.get("\u0100") == 0  # the character for byte 0, which in GPT-2's order comes after the printable ones
    try:
        if pattern is None:
            raise ValueError
        if by_value or pattern != GPT2Tokenizer.pattern:
            return BPETokenizer(apply_merges(merges, own, TIES["bytes" if by_value else "hf"]), pattern)
        return GPT2Tokenizer(apply_merges(merges, own))
    except ValueError:
        raise ValueError("its ids are not bytes, merges and the end-of-text token, in this order") from None


def _pretrained(
    pre_tokenizer: Any, model: dict[str, Any], added: list[dict[str, Any]], endoftext: str | None, *, nfc: bool
) -> PretrainedTokenizer:
    """Any byte-level BPE; ValueError if it cannot be followed."""
    steps = from_pre_tokenizer(pre_tokenizer)
    tokens = _tokens_by_id(model["vocab"] | {token["content"]: token["id"] for token in added})
    special = {token["id"]: token["content"] for token in added if token.get("special")}
    ordinary = {token["id"]: token["content"] for token in added if not token.get("special")}
    for token in added:
        if odd := [name for name in ("lstrip", "rstrip", "single_word") if token.get(name) and token["id"] in ordinary]:
            raise ValueError(f"its added token {token['content']!r} has {odd[0]}")
    names = (name for name, pattern in LLAMA_CPP_NAMES.items() if list(steps_of(pattern)) == steps)
    end = next((id for id, content in special.items() if content == (endoftext or ENDOFTEXT)), None)
    return from_merges(
        next(names, steps),
        tokens,
        map(" ".join, _merges(model)),
        special,
        end,
        added=ordinary,
        nfc=nfc,
        whole_pieces=bool(model.get("ignore_merges")),
    )


def _tokens_by_id(ids: dict[str, int]) -> list[str]:
    """The tokens in the order of their ids; ValueError if they are not 0, 1, 2 and so on."""
    tokens = sorted(ids, key=ids.__getitem__)
    if missing := set(range(len(tokens))) - set(ids.values()):
        raise ValueError(f"the ids of its {len(tokens)} tokens are not 0 to {len(tokens) - 1}: {min(missing)} is missing")
    return tokens
