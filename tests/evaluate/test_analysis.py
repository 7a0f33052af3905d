"""What a model thinks of a text: every number is that of `evaluate`, of the model itself, or computed here by hand."""

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib import Model
from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError, UsageError
from lib.evaluate import memorization, training_text, windows
from lib.evaluate.analysis import LENS_TOP, analyze, analyze_in_turns
from lib.evaluate.memorization import CopyIndex
from lib.evaluate.training_text import PASSAGE_BYTES
from lib.generate.quantize import InferenceModel
from lib.model.causal_attention import attention_weights
from lib.model.language_model import LanguageModel
from lib.model.maps import block_stack, residual_stream
from lib.tokenizer.bytes_ import BytesTokenizer
from tests.conftest import TEXT, Here
from tests.model.test_ladder import model_of

CPU = torch.device("cpu")
IDS = [70, 105, 114, 115, 116, 32, 67, 105, 116, 105, 122, 101, 110]


@pytest.fixture(scope="module")
def model(small: Path) -> Model:
    return Model.from_run(small / "run", device="cpu")


def byte_model(name: str, **changes: Any) -> LanguageModel:
    """A model over bytes with random weights; its tokenizer is `BYTES`."""
    return model_of(name, vocab_size=256, **changes)


BYTES = BytesTokenizer()


def test_surprisal_and_rank_are_those_of_evaluate(model: Model, small: Path, here: Here, tmp_path: Path) -> None:
    text = TEXT[:24]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    lines = here("evaluate", small / "run", "--text", tmp_path / "text.txt", "--per-token", "--device", "cpu").out.splitlines()
    expected = [json.loads(line) for line in lines]
    first, *others = model.analyze(text, alternatives=5).tokens
    assert (first.surprisal, first.rank, first.prediction) == (None, None, None)
    assert [token.id for token in others] == [line["id"] for line in expected]
    assert [token.rank for token in others] == [line["rank"] for line in expected]
    assert [token.surprisal for token in others] == pytest.approx([-line["logprob"] for line in expected], abs=1e-5)
    for token, line in zip(others, expected, strict=True):
        assert token.prediction is not None
        probabilities = [alternative["probability"] for alternative in line["alternatives"]]
        assert [other.probability for other in token.prediction.alternatives] == pytest.approx(probabilities, abs=1e-5)


def test_entropy_and_alternatives_are_those_of_the_distribution() -> None:
    bigram = byte_model("bigram")
    p = torch.arange(1, 257).double() / 128 / 257  # after the byte "a"
    with torch.no_grad():
        bigram.out_head.weight[97] = p.log().float()  # type: ignore[operator]
    token = analyze(bigram, BYTES, [97, 254], CPU, alternatives=3).tokens[1]
    assert token.surprisal == pytest.approx(-math.log(255 / 128 / 257), abs=1e-4)
    assert (token.rank, token.content) == (2, b"\xfe")
    assert token.prediction is not None
    assert token.prediction.entropy == pytest.approx(-float((p * p.log()).sum()), abs=1e-4)
    assert [other.id for other in token.prediction.alternatives] == [255, 254, 253]
    assert [other.probability for other in token.prediction.alternatives] == pytest.approx(
        p[[255, 254, 253]].tolist(), rel=1e-4
    )


@pytest.mark.parametrize("name", ["decoder", "single_block", "gpt_pointer"])
def test_the_last_layer_of_the_lens_is_the_model_itself(name: str) -> None:
    network = byte_model(name, n_layers=1 if name == "single_block" else 2, emb_dim=32, n_heads=2, context_length=16)
    logits = network(torch.tensor([IDS]))[0]
    result = analyze(network, BYTES, IDS, CPU, lens=True, full=True)
    assert result.logits is not None
    torch.testing.assert_close(result.logits, logits[-1].detach())
    for place, (token, row) in enumerate(zip(result.tokens[1:], logits, strict=False)):
        assert token.prediction is not None
        assert token.prediction.lens is not None
        assert [view.layer for view in token.prediction.lens] == list(range(2 if name == "single_block" else 3))
        last = token.prediction.lens[-1]
        assert (last.surprisal, last.rank) == (token.surprisal, token.rank)
        assert last.top == token.prediction.alternatives[:LENS_TOP]
        assert last.surprisal == pytest.approx(-row.log_softmax(-1)[IDS[place + 1]].item(), abs=1e-5)
    assert result.next.lens is not None
    assert (result.next.lens[-1].surprisal, result.next.lens[-1].rank) == (None, None)


def test_the_lens_between_two_blocks_is_the_model_without_the_later_ones() -> None:
    deep = byte_model("decoder", n_layers=3, emb_dim=32, n_heads=2, context_length=16)
    (*_, token) = analyze(deep, BYTES, IDS, CPU, lens=True).tokens
    assert token.prediction is not None
    assert token.prediction.lens is not None
    for layers in range(4):
        shallow = byte_model("decoder", n_layers=3, emb_dim=32, n_heads=2, context_length=16)
        for block in shallow.blocks[layers:]:  # type: ignore[index]
            block.attention.out_proj.weight.data.zero_()  # a block that adds nothing to the stream
            block.feed_forward.contract.weight.data.zero_()
        expected = analyze(shallow, BYTES, IDS, CPU).tokens[-1]
        assert token.prediction.lens[layers].surprisal == pytest.approx(expected.surprisal, abs=1e-5)


def test_the_residual_stream_begins_with_the_embeddings_and_ends_before_the_final_norm() -> None:
    network, window = byte_model("decoder", n_layers=2, emb_dim=32, n_heads=2), torch.tensor([IDS])
    stack = block_stack(network)
    assert stack is not None
    stream = list(residual_stream(stack, window))
    assert len(stream) == 3
    assert torch.equal(stream[0], network.tok_emb(window) + network.pos_emb.weight[: len(IDS)])  # type: ignore[operator,index,union-attr]
    assert torch.equal(stack.final_norm(stream[-1]), network.features(window))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 2},
        {"window": 3},
        {"positions": "rotary", "qk_norm": True, "n_kv_heads": 1},
        {"norm_position": "post"},
    ],
)
def test_attention_rows_sum_to_one_and_are_those_of_the_naive_path(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"n_layers": 2, "emb_dim": 32, "n_heads": 4, "context_length": 16, **changes}
    fused = byte_model("decoder", attention_impl="fused", **shape)
    naive = byte_model("decoder", attention_impl="naive", **shape)
    used: list[torch.Tensor] = []

    def noted(*arguments: torch.Tensor) -> torch.Tensor:
        used.append(attention_weights(*arguments))
        return used[-1]

    with monkeypatch.context() as patch:
        patch.setattr("lib.model.attention.attention_weights", noted)
        naive(torch.tensor([IDS]))
    maps = analyze(fused, BYTES, IDS, CPU, attention=True).attention
    assert maps is not None
    assert [layer.shape for layer in maps] == [(4, len(IDS), len(IDS))] * 2
    for layer, expected in zip(maps, used, strict=True):
        torch.testing.assert_close(layer, expected[0].detach())
        torch.testing.assert_close(layer.sum(-1), torch.ones(4, len(IDS)))
        places = torch.arange(len(IDS))
        distance = places[:, None] - places
        hidden = (distance < 0) | (distance >= shape.get("window", 16))
        assert not layer[:, hidden].any()


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8", "int4"])
def test_every_format_of_the_weights_is_analyzed_as_it_predicts(weights: str) -> None:
    network = InferenceModel(byte_model("decoder", n_layers=2, emb_dim=64, n_heads=2), weights)
    result = analyze(network, BYTES, IDS, CPU, lens=True, attention=True, full=True)
    assert result.logits is not None
    with torch.no_grad():
        torch.testing.assert_close(result.logits, network(torch.tensor([IDS]))[0, -1])
    assert result.next.lens is not None
    assert result.next.lens[-1].top == result.next.alternatives[:LENS_TOP]
    assert result.attention is not None
    assert len(result.attention) == 2


@pytest.mark.parametrize(
    ("name", "has_blocks", "has_attention"),
    [
        ("bigram", False, False),
        ("lstm", False, False),
        ("single_head", False, True),
        ("multi_head", False, True),
        ("single_block", True, True),
        ("decoder", True, True),
        ("gpt_pointer", True, True),
    ],
)
def test_every_kind_of_model_is_analyzed_and_what_it_lacks_is_refused_by_name(
    name: str, has_blocks: bool, has_attention: bool
) -> None:
    network = byte_model(name, **({} if name == "bigram" else {"emb_dim": 48}))
    text = IDS[:8]
    result = analyze(network, BYTES, text, CPU)
    assert b"".join(token.content for token in result.tokens) == bytes(text)
    assert len(result.next.alternatives) == 10
    for settings, present, missing in (
        ({"lens": True}, has_blocks, "blocks"),
        ({"attention": True}, has_attention, "attention"),
    ):
        if present:
            analyze(network, BYTES, text, CPU, **settings)
        else:
            with pytest.raises(UsageError, match=f"the model is a {network.config.kind}, which has no {missing}"):
                analyze(network, BYTES, text, CPU, **settings)


def test_others_may_compute_after_each_block_and_each_part_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = byte_model("decoder", n_layers=3, emb_dim=32, n_heads=2)

    def turns(**settings: Any) -> int:
        return len(list(analyze_in_turns(network, BYTES, IDS, CPU, **settings)))

    assert turns() == 4 + 1  # the embeddings and three blocks, the head
    monkeypatch.setattr(windows, "POSITIONS_AT_ONCE", 5)  # of 13: three parts
    assert turns() == 4 + 3
    assert turns(lens=True) == 4 + 3 + 3 * 2


def test_parts_that_memory_has_room_for_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = byte_model("decoder", n_layers=2, emb_dim=32, n_heads=2)
    whole = analyze(network, BYTES, IDS, CPU, lens=True)
    monkeypatch.setattr(windows, "POSITIONS_AT_ONCE", 4)
    parts = analyze(network, BYTES, IDS, CPU, lens=True)
    assert [token.rank for token in parts.tokens] == [token.rank for token in whole.tokens]
    assert [token.surprisal for token in parts.tokens[1:]] == pytest.approx([token.surprisal for token in whole.tokens[1:]])
    assert parts.next.entropy == pytest.approx(whole.next.entropy)


def test_one_token_has_only_what_follows_it(model: Model) -> None:
    result = model.analyze("T", lens=True, attention=True, counts=True, memorized=True)
    assert [token.text for token in result.tokens] == ["T"]
    assert result.attention is not None
    assert [layer.flatten().tolist() for layer in result.attention] == [[1.0] * len(layer) for layer in result.attention]
    assert result.memorized == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text has no tokens; give at least one"),
        ([], "the text has no tokens; give at least one"),
        ("x" * 33, r"the text has 33 tokens, and the model a context of 32; give it the last 32"),
        ([1, 256], r"the id 256 is not in the model's vocabulary of 256 tokens"),
        ([-1], r"the id -1 is not in the model's vocabulary"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_with_the_numbers(model: Model, text: str | list[int], message: str) -> None:
    with pytest.raises(MakegptError, match=message):
        model.analyze(text)


def test_damaged_weights_are_named() -> None:
    network = byte_model("decoder", n_layers=1, emb_dim=32, n_heads=2)
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    with pytest.raises(MakegptError, match=r"logits are not finite numbers; its weights are damaged"):
        analyze(network, BYTES, IDS, CPU)


def test_the_counts_next_to_the_model_are_the_baseline_of_evaluate(
    model: Model, small: Path, here: Here, tmp_path: Path
) -> None:
    text = TEXT[500:514] + "quite"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    here("evaluate", small / "run", "--text", tmp_path / "text.txt", "-o", tmp_path / "evaluation.json", "--device", "cpu")
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    result = model.analyze(text, counts=True)
    assert result.counts_name == "7-gram (counts)"
    assert result.tokens[0].counted is None
    counted = [token.counted for token in result.tokens[1:]]
    assert np.mean([nats for nats in counted if nats is not None]) == pytest.approx(evaluation["baselines"]["7-gram"]["loss"])


def test_of_a_long_training_text_the_end_is_counted_and_the_name_says_so(
    model: Model, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.analyze("to be", counts=True)
    monkeypatch.setattr(training_text, "MAX_COUNTED_TOKENS", 100)
    part = Model.from_run(small / "run", device="cpu").analyze("to be", counts=True)
    assert part.counts_name == "7-gram (counts), last 100 tokens"
    assert [token.counted for token in part.tokens] != [token.counted for token in whole.tokens]


def test_memorized_passages_are_named_with_their_place_and_surroundings(model: Model, small: Path) -> None:
    content = TEXT.encode()  # a byte is a token here
    passage = content[1000:1040]
    (found,) = model.training_text.passages(b"\x00\x01" + passage + b"\x02")
    assert (found.start, found.stop, found.text) == (2, 42, passage.decode())
    assert content[found.place : found.place + 40] == passage
    assert content[: found.place].decode().endswith(found.before)
    assert content[found.place + 40 :].decode().startswith(found.after)
    assert len(found.after.encode()) == 2 * PASSAGE_BYTES
    for text in (passage[: PASSAGE_BYTES - 1], passage[::-1], b""):
        assert model.training_text.passages(text) == []
    start = model.training_text.passages(content[:PASSAGE_BYTES])[0]
    assert (start.place, start.before) == (0, "")
    assert model.analyze(content[1000:1032], memorized=True).memorized == tuple(
        model.training_text.passages(content[1000:1032])
    )


def test_passages_are_the_longest_runs_that_a_search_of_all_places_finds() -> None:
    draw = random.Random(1)
    for _ in range(300):
        vocabulary = draw.choice([2, 3, 8])
        training = [draw.randrange(vocabulary) for _ in range(draw.randrange(80))]
        text = training[5 : 5 + draw.randrange(15)] + [draw.randrange(vocabulary) for _ in range(draw.randrange(20))]
        n = draw.choice([1, 2, 4, 6])
        copies = CopyIndex(InMemoryTokens(np.array(training, np.int64)), 0, len(training)).passages(np.array(text, np.int64), n)
        assert [(start, stop) for start, stop, _ in copies] == naive_passages(text, training, n)
        for start, stop, place in copies:
            assert training[place : place + stop - start] == text[start:stop]


def naive_passages(text: list[int], training: list[int], n: int) -> list[tuple[int, int]]:
    """The longest run first, the earliest of equal ones, then the same before and after it."""

    def stands(run: list[int]) -> bool:
        return any(training[at : at + len(run)] == run for at in range(len(training) - len(run) + 1))

    def split(start: int, stop: int) -> list[tuple[int, int]]:
        for length in range(stop - start, n - 1, -1):
            for at in range(start, stop - length + 1):
                if stands(text[at : at + length]):
                    return [*split(start, at), (at, at + length), *split(at + length, stop)]
        return []

    return split(0, len(text))


def test_a_text_that_repeats_itself_is_searched_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorization, "_MAX_MATCHES", 1000)
    index = CopyIndex(InMemoryTokens(np.zeros(5000, np.int64)), 0, 5000)
    offsets, places = index._matches(np.zeros(40, np.uint32), 8)  # 33 × 4,993 matches
    assert 0 < len(offsets) == len(places) <= 1000
    assert index.passages(np.zeros(40, np.int64), 8) != []


def test_a_run_without_its_training_text_says_so_and_names_no_folder(copied: Path) -> None:
    shutil.rmtree(copied / "dataset")
    result = Model.from_run(copied / "run", device="cpu").analyze("To be", counts=True, memorized=True)
    assert (
        result.counts_missing
        == result.memorized_missing
        == "the dataset that the model was trained on is missing, or has changed"
    )
    assert (result.counts_name, result.memorized) == (None, None)


def test_a_run_that_was_moved_after_it_was_loaded_has_no_training_text(copied: Path) -> None:
    model = Model.from_run(copied / "run", device="cpu")
    (copied / "run").rename(copied / "elsewhere")
    result = model.analyze("To be", counts=True, memorized=True)
    assert (
        result.counts_missing == result.memorized_missing == "the dataset that the model was trained on cannot be read any more"
    )
