"""Tokenizers in Hugging Face's layout, with the package `tokenizers` as reference."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.errors import MakegptError
from lib.huggingface.tokenizer import from_hf_tokenizer, load_hf_tokenizer, to_hf_tokenizer
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.byte_alphabet import byte_string
from lib.tokenizer.bytes_ import BytesTokenizer
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, PATTERNS
from lib.tokenizer.pretrained import PretrainedTokenizer
from lib.tokenizer.word import WordTokenizer

ODD = "It's 1851: the  whale!\n\n “Whale” -- d'ye --- (see?)\t\u3000漢字 🐋 e\u0301 33333 he<t>he's\x1cend\r\n "
SINGLE = [bytes([byte]) for byte in range(256)]


@pytest.fixture(scope="module")
def tokenizers() -> Any:
    return pytest.importorskip("tokenizers", reason="tokenizers is not installed; make setup EXTRAS=dev,parity")


def pretrained(pattern: str | list[str], **options: Any) -> PretrainedTokenizer:
    tokens = [b"<end>", *SINGLE, b"he", b" t", b" the", b"\n\n", b"33", b"e he", b"<t>"]
    return PretrainedTokenizer(pattern, tokens, [0], 0, added=[263], **options)


TOKENIZERS: dict[str, Tokenizer] = {
    **{name: pretrained(name) for name in LLAMA_CPP_NAMES},
    "nfc": pretrained("qwen2", nfc=True),
    "other steps": pretrained([r"\p{N}{1,2}", r"\s*\p{L}+"]),
    "bytes": BytesTokenizer(),
    "char": CharTokenizer("".join(sorted(set(ODD)))),
    "word": WordTokenizer.train([[ODD]], Path()),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers_gives_the_ids_and_the_text_of_an_export(name: str, tokenizers: Any) -> None:
    ours = TOKENIZERS[name]
    saved = to_hf_tokenizer(ours)
    assert saved is not None
    theirs = tokenizers.Tokenizer.from_str(json.dumps(saved["tokenizer.json"]))
    for text in (ODD, ODD[::-1], ODD * 3, " the", "x" if name == "word" else "", ""):
        ids = theirs.encode(text).ids
        assert ids == ours.encode(text), text
        assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_export_is_read_as_it_was(name: str) -> None:
    ours = TOKENIZERS[name]
    saved = to_hf_tokenizer(ours)
    assert saved is not None
    again = from_hf_tokenizer(json.loads(json.dumps(saved["tokenizer.json"])), saved["tokenizer_config.json"].get("eos_token"))
    assert again.encode(ODD) == ours.encode(ODD)
    assert again.special_ids() == ours.special_ids()
    assert again.kind == ours.kind


def trained(tokenizers: Any, pre_tokenizer: Any) -> Any:
    """A tokenizer of theirs, trained on `ODD`."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = pre_tokenizer
    initial = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=initial, special_tokens=["<s>"]
    )
    theirs.train_from_iterator([ODD * 2], trainer)
    return theirs


def test_a_tokenizer_of_theirs_gives_its_own_ids(tokenizers: Any) -> None:
    steps = tokenizers.pre_tokenizers
    whole = steps.ByteLevel(add_prefix_space=False, use_regex=False)
    words = steps.ByteLevel(add_prefix_space=False)
    split = steps.Split(tokenizers.Regex(r"\p{L}{1,3}"), "isolated")
    llama = steps.Split(tokenizers.Regex(PATTERNS["llama-bpe"]), "removed", invert=True)
    for pre_tokenizer in (
        words,
        steps.Sequence([split, words]),
        steps.Sequence([steps.Split("he", "isolated"), whole]),
        steps.Sequence([llama, whole]),
        steps.Sequence([steps.Digits(individual_digits=True), steps.Sequence([words])]),
        steps.Sequence([steps.Digits(individual_digits=False), whole]),
        steps.Sequence([steps.Punctuation("contiguous"), words]),
        steps.Sequence([steps.Punctuation(), whole]),
    ):
        theirs = trained(tokenizers, pre_tokenizer)
        theirs.normalizer = tokenizers.normalizers.NFC()
        theirs.add_tokens(["<t>", "hal!"])
        theirs.add_special_tokens(["<end>"])
        ours = from_hf_tokenizer(json.loads(theirs.to_str()), "<end>")
        assert ours.endoftext == theirs.token_to_id("<end>")
        assert ours.vocab_size == theirs.get_vocab_size()
        for text in (ODD, ODD[::-1], "hal!<t>hal!e the<t>"):
            assert ours.encode(text) == theirs.encode(text).ids, (pre_tokenizer, text)


def test_a_piece_that_is_a_token_needs_no_merge_where_merges_are_ignored(tokenizers: Any) -> None:
    def tokenizer_json(*tokens: str, **options: bool) -> dict[str, Any]:
        vocabulary = {token: id for id, token in enumerate([*map(byte_string, SINGLE), *tokens])}
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("h", "e")], **options))
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        return dict(json.loads(theirs.to_str()))

    saved = tokenizer_json("whale", "he", ignore_merges=True)
    ours, theirs = from_hf_tokenizer(saved), tokenizers.Tokenizer.from_str(json.dumps(saved))
    assert ours.encode("whale whalewhale whe") == theirs.encode("whale whalewhale whe").ids
    for unreachable in (tokenizer_json("whale", "he"), tokenizer_json("the", "he", ignore_merges=True)):
        with pytest.raises(ValueError, match=r"the token .(whale|the). is not made by a merge"):  # t and he never are
            from_hf_tokenizer(unreachable)


def changed(**changes: Any) -> dict[str, Any]:
    saved = to_hf_tokenizer(pretrained("llama-bpe"))
    assert saved is not None
    content: dict[str, Any] = saved["tokenizer.json"]
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) and isinstance(content[key], dict) else value
    return content


def split(pattern: dict[str, str], behavior: str) -> dict[str, Any]:
    cut = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": False}
    whole = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [cut, whole]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": split({"Regex": "(a"}, "Isolated")}, r"the pattern '\(a' is no regular expression"),
        ({"pre_tokenizer": split({"Regex": "a"}, "MergedWithNext")}, "its pre_tokenizer is .*MergedWithNext"),
        ({"pre_tokenizer": split({"Regex": "a"}, "Removed")}, "its pre_tokenizer is .*Removed"),
        ({"pre_tokenizer": {"type": "Metaspace", "pretokenizers": []}}, "its pre_tokenizer is .*Metaspace"),
        ({"normalizer": {"type": "NFKC"}}, "its normalizer is .*NFKC"),
        ({"model": {"type": "Unigram"}}, "its model is Unigram"),
        ({"model": {"byte_fallback": True}}, "its model has byte_fallback"),
        ({"model": {"merges": [["h", "e"], ["h", "x"]]}}, "the merge 'h x' does not make a token"),
        ({"model": {"merges": [["Ġ", "t"], ["h", "e"]]}}, "the merge 'h e' is not in the order of the ids"),
        ({"model": {"vocab": {"a": 0, "b": 2}, "merges": []}}, "1 is missing"),
        ({"model": {"vocab": {"a": 0, "b": 0}, "merges": []}}, "1 is missing"),
        ({"added_tokens": [{"id": 263, "content": "<t>", "special": False, "lstrip": True}]}, "'<t>' has lstrip"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed(**changes)))
    with pytest.raises(MakegptError, match=message) as caught:
        load_hf_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
