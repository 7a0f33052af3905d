"""The fields of a body, and tokens and pieces of texts in the formats of the answers."""

import math
from typing import Any, Callable

import pytest

from lib.config.params import load_params, resolve_config
from lib.generate.token_scores import TokenScore
from lib.serve import chat, completions
from lib.serve.answers import Piece, joined
from lib.serve.errors import ApiError
from lib.serve.fields import Fields, checked_ids
from lib.serve.logprobs import SpelledToken, Speller, chat_logprobs, completion_logprobs, explanation, spelling
from lib.serve.options import Options
from lib.tokenizer.bytes_ import BytesTokenizer

Read = Callable[[Fields], Any]


def integer(fields: Fields) -> int:
    return fields.integer("n", 1, at_least=0, at_most=10)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"n": NaN}', "NaN is not JSON"),
        (b'{"n": 1e999}', "too large for a number"),
        (b'{"n": 1, "n": 2}', "duplicate key 'n'"),
        (b'{"prompt": "\xff"}', "byte 12 is not valid UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 80 + b"1" + b"}" * 80, "nested"),
    ],
)
def test_a_body_that_is_no_strict_json_object_is_refused(content: bytes, complaint: str) -> None:
    with pytest.raises(ApiError, match=complaint) as caught:
        Fields(content)
    assert caught.value.status == 400
    assert caught.value.to_json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        *((value, integer) for value in ("-1", "11", "true", "1.5", '"1"', "[]", "1e300", "99999999999999999999999")),
        *((value, lambda fields: fields.flag("n")) for value in ("1", "0", '"true"', "[]")),
        *((value, lambda fields: fields.text("n")) for value in ("1", "[]", "true", '"\\ud800"', '"a\\udfffb"')),
        *((value, lambda fields: fields.sampling("n", None)) for value in ('"1"', "true", "[1]")),
        *(
            (value, lambda fields: fields.texts("n", at_most=2))
            for value in ('""', '["a", ""]', '["a", "b", "c"]', "[1]", "{}")
        ),
        *(
            (value, lambda fields: checked_ids(fields.value("n"), "n", 10))
            for value in ("[]", "[10]", "[-1]", "[true]", '["a"]', "7")
        ),
        *((value, lambda fields: fields.inner("n")) for value in ("[]", "1", '"a"')),
        *((value, lambda fields: fields.refuse("n", (0,), "leave it out")) for value in ("1", "[0]", '"0"')),
    ],
)
def test_a_field_of_another_type_or_out_of_its_bounds_is_refused_by_name(value: str, read: Read) -> None:
    with pytest.raises(ApiError) as caught:
        read(Fields(f'{{"n": {value}}}'.encode()))
    assert (caught.value.status, caught.value.param) == (400, "n")
    assert "n" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("temperature", "-0.1", "between 0 and"),
        ("top_p", "0", "greater than 0"),
        ("top_k", "-1", "at least 1"),
        ("seed", "-1", "between 0"),
    ],
)
def test_sampling_parameters_have_the_bounds_of_generate(name: str, value: str, right: str) -> None:
    with pytest.raises(ApiError, match=right) as caught:
        Fields(f'{{"{name}": {value}}}'.encode()).sampling(name, None)
    assert caught.value.param == name


def test_an_absent_field_and_null_are_the_default() -> None:
    for fields in (Fields(b"{}"), Fields(b'{"n": null}')):
        assert integer(fields) == 1
        assert fields.flag("n", True) is True
        assert fields.text("n") is None
        assert fields.texts("n", at_most=1) == []
        assert fields.sampling("temperature", 1.0) == 1.0
        fields.refuse("n", (), "leave it out")


def test_fields_that_nothing_reads_are_unknown_and_can_be_written_to_a_log() -> None:
    fields = Fields(b'{"n": 1, "us\\u001b[31mer": 1, "logit_bias": {}, "%s": 1}' % (b"x" * 500))
    integer(fields)
    fields.refuse("logit_bias", ({},), "leave it out")
    assert fields.unknown() == f"us\\x1b[31mer, {'x' * 60}"
    many = Fields(b"{" + b", ".join(b'"%d": 1' % number for number in range(30)) + b"}")
    assert many.unknown().endswith("9 and 20 more")


def score(id: int, logprob: float, others: list[tuple[int, float]]) -> TokenScore:
    alternatives = [{"id": other, "text": "", "logprob": value, "probability": math.exp(value)} for other, value in others]
    return TokenScore(id, "", logprob, math.exp(logprob), 1, alternatives)


@pytest.fixture
def speller() -> Speller:
    return Speller(BytesTokenizer())


def test_half_characters_are_spelled_as_bytes_and_offsets_count_characters(speller: Speller) -> None:
    tokens = [speller.spell(id, None) for id in "a€b".encode()]
    assert [spelling(token.content) for token in tokens] == ["a", r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac", "b"]
    assert [token.offset for token in tokens] == [0, 1, 1, 1, 2]
    assert completion_logprobs(tokens, 1)["top_logprobs"] == [None] * 5


def test_alternatives_with_half_characters_keep_their_own_keys(speller: Speller) -> None:
    token = speller.spell(0xE2, score(0xE2, -2.0, [(0xE3, -0.5), (0xC3, -1.0)]))
    logprobs = completion_logprobs([token], 2)
    assert logprobs["top_logprobs"] == [{r"bytes:\xe3": -0.5, r"bytes:\xc3": -1.0, r"bytes:\xe2": -2.0}]
    assert logprobs["token_logprobs"] == [-2.0]
    assert completion_logprobs([token], 0)["top_logprobs"] == [{r"bytes:\xe2": -2.0}]


def test_two_tokens_with_one_spelling_are_both_answered() -> None:
    class Doubled:
        def bytes_after(self, previous: int | None, id: int) -> bytes:
            return b"same"

    token = Speller(Doubled()).spell(1, score(1, -1.0, [(0, -0.5), (1, -1.0)]))  # type: ignore[arg-type]
    assert completion_logprobs([token], 2)["top_logprobs"] == [{"same": -0.5, "token_id:1": -1.0}]


def test_the_end_of_text_is_a_token_of_completions_but_not_of_chats(speller: Speller) -> None:
    tokens = [speller.spell(97, score(97, -1.0, [(98, -0.5)])), speller.spell(98, score(98, -2.0, []), is_end=True)]
    assert completion_logprobs(tokens, 1)["tokens"] == ["a", "b"]
    assert chat_logprobs(tokens, 1)["content"] == [
        {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -0.5, "bytes": [98]}]}
    ]
    assert [explanation(token)["end_of_text"] for token in tokens] == [False, True]


def test_a_probability_of_zero_is_a_number_of_json_and_nan_is_an_error(speller: Speller) -> None:
    assert speller.spell(97, score(97, -math.inf, [])).logprob == -9999.0
    with pytest.raises(ApiError, match="not finite") as caught:
        speller.spell(97, score(97, math.nan, []))
    assert caught.value.status == 500


def test_a_certain_token_has_a_surprisal_of_zero() -> None:
    assert str(explanation(SpelledToken(1, b"a", 0, logprob=0.0, rank=1))["surprisal"]) == "0.0"


def test_text_that_was_held_back_until_the_time_was_over_comes_without_a_token() -> None:
    config = resolve_config(load_params()).generate
    options = Options(config, 9, 1, ["abc"], True, False, alternatives=1, explain=True)
    last = Piece(0, "ab", finish_reason="length")
    (item,) = completions.chunks(last, options)
    assert (item["text"], item["finish_reason"], "makegpt" in item) == ("ab", "length", False)
    text, end = chat.chunks(last, options)
    assert (text["delta"], text["finish_reason"]) == ({"content": "ab"}, None)
    assert (end["delta"], end["finish_reason"]) == ({}, "length")


def test_the_pieces_of_a_text_are_one_when_it_is_answered_whole(speller: Speller) -> None:
    tokens = [speller.spell(id, None) for id in b"ab"]
    pieces = [Piece(3, starts=True), Piece(3, "a", (tokens[0],)), Piece(3, "b", (tokens[1],), finish_reason="stop")]
    assert joined(pieces) == Piece(3, "ab", tuple(tokens), True, "stop")
