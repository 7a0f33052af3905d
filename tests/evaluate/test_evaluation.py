"""What a number of an evaluation is, and how far it can be trusted."""

import gzip
import json
import lzma
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.artifact.io import read_json, sha256_of, write_json
from lib.artifact.record import from_json, to_json
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError
from lib.evaluate import memorization, windows
from lib.evaluate.baselines import default_baselines
from lib.evaluate.comparison import comparison_legend, comparison_table, evaluation_rows
from lib.evaluate.compressors import added_bytes
from lib.evaluate.evaluation import count_bytes, evaluate
from lib.evaluate.memorization import CopyIndex, measure_copying, measure_recall
from lib.evaluate.metrics import (
    MIN_BLOCK,
    MIN_BLOCKS,
    MOST_BLOCKS,
    BlockSums,
    Lead,
    Score,
    StandardErrors,
    block_count,
    fraction_with_se,
    paired_lead,
    ratio_with_se,
    significant,
    student_t,
    unpaired_lead,
)
from lib.evaluate.probes import default_probes
from lib.evaluate.results import BaselineScore, CountedTokens, Evaluation, read_evaluation
from lib.evaluate.span import TokenSpan, dataset_span, decoded_pieces, text_span
from lib.evaluate.windows import iterate_predictions, predict_batches, total_nats
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, TrainedModel, load_run
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.word import WordTokenizer
from tests.conftest import TEXT, TINY, Here

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def untrained() -> LanguageModel:
    """A model of context 32 over 256 ids."""
    built = build_model(resolve_config(load_params(), "debug", ["model.vocab_size=256"]).model)
    built.initialize(torch.Generator().manual_seed(1))
    return built.eval()


@pytest.fixture(scope="module")
def ids() -> InMemoryTokens:
    return InMemoryTokens(np.random.default_rng(1).integers(0, 256, 400).astype(np.uint16))


def collected(*args: Any) -> tuple[np.ndarray, np.ndarray]:
    nats, ranks = zip(*predict_batches(*args), strict=True)
    return np.concatenate(nats), np.concatenate(ranks)


@pytest.mark.parametrize(("start", "stop"), [(0, 400), (3, 36), (3, 35), (3, 5), (10, 75), (0, 33)])
def test_each_token_of_a_stretch_is_predicted_once_in_order(
    untrained: LanguageModel, ids: InMemoryTokens, start: int, stop: int
) -> None:
    nats, ranks = collected(untrained, ids, start, stop, CPU)
    found = [(id, logits) for _, id, logits in iterate_predictions(untrained, ids, start, stop, CPU)]
    logprobs = [torch.log_softmax(logits, -1) for _, logits in found]
    assert nats == pytest.approx([-p[id].item() for (id, _), p in zip(found, logprobs, strict=True)], abs=1e-5)
    order = [logits.argsort(descending=True, stable=True).tolist() for _, logits in found]
    assert ranks.tolist() == [1 + places.index(id) for (id, _), places in zip(found, order, strict=True)]
    assert nats.sum() == pytest.approx(total_nats(untrained, ids, start, stop, CPU), rel=1e-5)


def test_logits_in_small_parts_are_those_of_whole_windows(
    untrained: LanguageModel, ids: InMemoryTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(iterate_predictions(untrained, ids, 3, 150, CPU))
    monkeypatch.setattr(windows, "POSITIONS_AT_ONCE", 5)
    parts = list(iterate_predictions(untrained, ids, 3, 150, CPU))
    assert [part[:2] for part in parts] == [part[:2] for part in whole]
    assert [position for position, _, _ in parts] == list(range(4, 150))
    assert torch.allclose(torch.stack([part[2] for part in parts]), torch.stack([part[2] for part in whole]), atol=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 16, 31, 32])
@pytest.mark.parametrize("stop", [400, 33, 34, 3, 47])
def test_windows_that_overlap_predict_each_token_once_from_what_stands_before(
    untrained: LanguageModel, ids: InMemoryTokens, stride: int, stop: int
) -> None:
    nats, _ = collected(untrained, ids, 0, stop, CPU, stride)
    assert len(nats) == stop - 1
    for place in {0, min(40, stop - 2), stop - 2}:  # by hand: the window that ends a stride, and the last of a stride
        number = 0 if place < 32 else -(-(place - 31) // stride)
        window = torch.from_numpy(ids.read(number * stride, place + 1).astype("int64"))[None]
        logits = untrained(window)[0, -1]
        assert nats[place] == pytest.approx(
            -torch.log_softmax(logits, -1)[int(ids.read(place + 1, place + 2)[0])].item(), abs=1e-5
        )


def test_of_equally_likely_tokens_the_lower_id_ranks_first(untrained: LanguageModel, ids: InMemoryTokens) -> None:
    silent = build_model(untrained.config)
    for weight in silent.parameters():
        torch.nn.init.zeros_(weight)
    nats, ranks = collected(silent.eval(), ids, 0, 400, CPU)
    assert ranks.tolist() == (ids.read(1, 400).astype(int) + 1).tolist()
    assert nats == pytest.approx(math.log(256))


@pytest.mark.parametrize("parts", [[600], [1, 599], [128, 128, 344], [127, 2, 471], [0, 600], [100] * 6])
def test_sums_do_not_depend_on_how_the_tokens_come(parts: list[int]) -> None:
    values = np.arange(600.0)
    sums = BlockSums(600)
    for part in np.split(values, np.cumsum(parts)[:-1]):
        sums.add(part)
    assert sums.blocks.tolist() == [values[at : at + 75].sum() for at in range(0, 600, 75)]
    assert (sums.sizes.tolist(), sums.count, sums.total) == ([75] * 8, 600, values.sum())


def test_blocks_are_of_equal_size_to_one_token() -> None:
    for tokens in [*range(1, 3000), 10**9 + 7]:
        count = block_count(tokens)
        assert count == 1 or count >= MIN_BLOCKS
        assert count == 1 or tokens // count >= MIN_BLOCK
        if tokens < 3000:
            sizes = BlockSums(tokens).sizes
            assert (len(sizes), sizes.sum()) == (count, tokens)
            assert sizes.max() - sizes.min() <= 1


def test_a_longer_text_takes_no_more_memory_for_its_sums() -> None:
    for tokens in (10**6, 10**9 + 7):
        sums = BlockSums(tokens)
        assert len(sums.blocks) == len(sums.sizes) == MOST_BLOCKS
        assert sums.sizes.max() - sums.sizes.min() <= 1


def test_a_standard_error_is_how_much_a_mean_varies_from_sample_to_sample() -> None:
    generator = np.random.default_rng(2)
    means, errors = [], []
    for _ in range(300):
        blocks = np.repeat(generator.normal(size=40), 128) + generator.normal(size=40 * 128)  # alike within a block
        value, error = ratio_with_se(blocks.reshape(40, 128).sum(1), np.full(40, 128))
        means.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert ratio_with_se(np.full(7, 3.0), np.full(7, 2.0)) == (1.5, None), "seven blocks cannot tell"


def test_a_paired_difference_is_surer_than_the_losses_it_is_of() -> None:
    generator = np.random.default_rng(3)
    hard = np.repeat(generator.normal(5, 1, 50), 128)
    one, two = BlockSums(len(hard)), BlockSums(len(hard))
    one.add(hard + generator.normal(0.1, 0.1, len(hard)))
    two.add(hard)
    found = paired_lead(one, two)
    assert found.loss == pytest.approx(0.1, abs=0.01)
    assert found.standard_error is not None
    assert found.standard_error < 0.01 < ratio_with_se(two.blocks, two.sizes)[1]  # type: ignore[operator]
    assert found.significant is True
    assert significant(0.1, 0.06, 49) is False
    assert significant(0.1, None, 49) is None


def test_students_t_is_that_of_the_tables() -> None:
    """Fisher and Yates 1938, table III, to three digits."""
    tables = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 7: 2.365, 10: 2.228, 30: 2.042, 120: 1.980, 10**9: 1.960}
    for freedom, t in tables.items():
        assert student_t(freedom) == pytest.approx(t, abs=5e-4)
    assert student_t(200) == pytest.approx(student_t(201), abs=5e-4), "where the formula changes"


def drawn(kind: str, texts: int, tokens: int) -> np.ndarray:
    """Differences of two models' losses, token by token, that are 0 in the mean: (texts, tokens)."""
    generator = np.random.default_rng(tokens)
    if kind == "normal":
        return generator.normal(size=(texts, tokens))
    if kind == "heavy tails":  # kurtosis 9, which is what those of counted bigrams and trigrams have on Hamlet
        return generator.standard_t(5, size=(texts, tokens))
    noise, shared = generator.normal(size=(texts, tokens)), generator.normal(size=(texts, tokens // 20 + 2))
    start = generator.integers(20, size=(texts, 1))  # passages of 20 tokens have something in common
    return noise + 0.2 * np.take_along_axis(shared, (start + np.arange(tokens)) // 20, axis=1)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "passages"])
@pytest.mark.parametrize("tokens", [2, 64, 127, 128, 129, 140, 256, 511, 512, 700, 1024, 2000])
def test_where_there_is_no_difference_few_are_found(kind: str, tokens: int) -> None:
    """5 in 100 are meant; what neighboring tokens share makes it a little more. Of a short text nothing is said."""
    texts = 1000 if tokens >= 512 else 10
    answers = []
    for differences in drawn(kind, texts, tokens):
        sums, nothing = BlockSums(tokens), BlockSums(tokens)
        sums.add(differences)
        answers.append(paired_lead(sums, nothing).significant)
    if tokens < 512:
        assert set(answers) == {None}
    else:
        assert 0.02 < np.mean(np.array(answers, dtype=float)) < (0.10 if kind == "passages" else 0.075)


@pytest.mark.parametrize("tokens", [512, 1024, 5360])
def test_a_difference_that_is_there_is_found(tokens: int) -> None:
    """One of a quarter of what single tokens scatter by."""
    found = []
    for differences in drawn("heavy tails", 200, tokens) + 0.25 * math.sqrt(5 / 3):
        sums, nothing = BlockSums(tokens), BlockSums(tokens)
        sums.add(differences)
        found.append(paired_lead(sums, nothing))
    assert np.mean([lead.significant for lead in found]) > 0.95
    assert all(lead.loss > 0 for lead in found)


def test_where_all_or_none_are_right_the_error_is_not_known() -> None:
    for values, expected in ((np.ones(600), 1.0), (np.zeros(600), 0.0)):
        right = BlockSums(600)
        right.add(values)
        assert fraction_with_se(right) == (expected, None)
    half = BlockSums(600)
    half.add(np.random.default_rng(1).integers(2, size=600))
    assert fraction_with_se(half)[1] == pytest.approx(0.5 / math.sqrt(600), rel=0.5)


def test_a_compressor_is_charged_what_the_text_adds() -> None:
    training, text = TEXT[:2500].encode(), TEXT[2500:].encode()
    added = added_bytes("gzip", training, lambda: [text[:7], text[7:]])
    assert added == len(gzip.compress(training + text)) - len(gzip.compress(training))
    assert added_bytes("xz", training, lambda: [text]) == len(lzma.compress(training + text)) - len(lzma.compress(training))
    assert added_bytes("xz", b"", lambda: [text]) > added_bytes("xz", training, lambda: [text])


def by_definition(training: list[int], text: list[int], n: int) -> list[bool]:
    known = {tuple(training[at : at + n]) for at in range(len(training) - n + 1)}
    return [tuple(text[at : at + n]) in known for at in range(len(text) - n + 1)]


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_what_was_copied_is_found_as_a_search_would_find_it(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(memorization, "_BLOCK", block)
    generator = np.random.default_rng(4)
    training = generator.integers(0, 4, 120).astype(np.uint16)
    texts = [generator.integers(0, 4, size).astype(np.uint16) for size in (30, 1, 0, 3)] + [training[50:71], training[-9:]]
    searched = CopyIndex(InMemoryTokens(training), 10, 118)
    for n in (1, 2, 4, 8, 21, 22):
        expected = [by_definition(training[10:118].tolist(), text.tolist(), n) for text in texts]
        assert [flags.tolist() for flags in searched.copied(texts, n)] == expected
    assert searched.longest_run(texts).tolist() == training[50:71].tolist()
    assert searched.longest_run([]).tolist() == searched.longest_run([np.array([77])]).tolist() == []


def test_equal_ids_of_another_order_are_not_taken_for_a_copy() -> None:
    searched = CopyIndex(InMemoryTokens(np.array([1, 2, 3, 4])), 0, 4)
    assert not searched.copied([np.array([4, 3, 2, 1])], 2)[0].any()


def test_runs_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memorization, "_hashes", lambda ids, n: np.zeros(max(0, len(ids) - n + 1), np.uint64))
    searched = CopyIndex(InMemoryTokens(np.array([1, 2, 3, 4])), 0, 4)
    assert searched.copied([np.array([3, 4]), np.array([4, 3])], 2)[0].tolist() == [True]
    assert not searched.copied([np.array([4, 3, 2])], 2)[0].any()


@pytest.mark.parametrize("long", [1, 3, 4, 5, 7, 8, 11, 16, 17, 40])
def test_the_training_text_is_read_for_all_kinds_of_texts_at_once(monkeypatch: pytest.MonkeyPatch, long: int) -> None:
    searched = CopyIndex(InMemoryTokens(np.arange(100)), 0, 100)
    kinds = {name: [np.r_[[200], at : at + long, [201]]] for name, at in (("one", 3), ("two", 50), ("three", 60))}
    read: list[int] = []
    copied = CopyIndex.copied
    monkeypatch.setattr(CopyIndex, "copied", lambda self, texts, n: read.append(n) or copied(self, texts, n))  # type: ignore[func-returns-value]
    found = measure_copying(searched, CharTokenizer([chr(0x100 + n) for n in range(202)]), kinds)
    assert [kind.longest_run for kind in found.values()] == [long] * 3
    assert len(read) <= 3 + 3 * (3 if long < 16 else 5), read


@pytest.fixture(scope="module")
def evaluation(small: Path) -> dict[str, Any]:
    """The evaluation of the small run as JSON, without a separate process."""
    trained = load_run(small / "run", CPU)
    span = dataset_span(small / "run", trained, Dataset(small / "dataset"), "val")
    data: dict[str, Any] = to_json(evaluate_with(trained, span, resolve_config(load_params(), "debug"), small / "run"))
    return data


def evaluate_with(trained: TrainedModel, span: TokenSpan, config: Config, folder: Path = Path()) -> Evaluation:
    """What the stage `evaluate` computes with a config."""
    baselines = default_baselines(span, trained.tokenizer, config.evaluate.ngram_order)
    return evaluate(trained, span, CPU, baselines=baselines, probes=default_probes(folder, span, config))


def test_an_evaluation_holds_scores_their_errors_and_what_they_are_measured_against(evaluation: dict[str, Any]) -> None:
    assert set(evaluation["standard_error"]) == {"loss", "perplexity", "bits_per_byte", "top_1", "top_5"}
    assert all(error > 0 for error in evaluation["standard_error"].values())
    assert 0 <= evaluation["top_1"] <= evaluation["top_5"] <= 1
    assert set(evaluation["baselines"]) == {
        "uniform", "unigram", "bigram", "add-one bigram", "trigram", "4-gram", "5-gram", "6-gram", "7-gram", "gzip", "xz",
    }  # fmt: skip
    for found in evaluation["baselines"].values():
        assert found["bits_per_byte"] == pytest.approx(found["loss"] / math.log(2)), "a token is a byte here"
    bigram = evaluation["baselines"]["bigram"]
    assert bigram["lead"]["loss"] == pytest.approx(evaluation["loss"] - bigram["loss"])
    assert bigram["lead"]["significant"] is True


def test_of_a_long_training_text_the_end_is_counted_and_that_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset(small / "dataset")
    text = TokenSpan(InMemoryTokens(np.arange(40, 60)), 0, 20, dataset)
    config = resolve_config(load_params(), "debug", ["evaluate.overlap=0"])
    trained = load_run(small / "run", CPU)
    whole = evaluate_with(trained, text, config)
    assert whole.ngram_training_tokens == CountedTokens(dataset.train_tokens, dataset.train_tokens)
    assert whole.notes() == []
    monkeypatch.setattr("lib.evaluate.evaluation.MAX_COUNTED_TOKENS", 1000)
    monkeypatch.setattr("lib.evaluate.baselines.MAX_COUNTED_TOKENS", 1000)
    found = evaluate_with(trained, text, config)
    assert found.ngram_training_tokens == CountedTokens(1000, dataset.train_tokens)
    assert found.notes() == [f"n-grams are counted on the last 1,000 of {dataset.train_tokens:,} training tokens"]
    end = NGrams(dataset.tokens, [(dataset.train_tokens - 1000, dataset.train_tokens)], 5, 256)
    nats = sum(block["bigram"].sum() for block in KneserNey(end).nats(text.tokens, 1, 20))
    assert found.baselines["bigram"].loss == pytest.approx(nats / 19)
    assert found.baselines["bigram"].loss != whole.baselines["bigram"].loss


def test_the_loss_by_position_is_a_mean_of_all_tokens(evaluation: dict[str, Any]) -> None:
    parts = evaluation["loss_by_position"]
    assert [(part["from"], part["to"]) for part in parts] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32)]
    assert min(part["loss"] for part in parts) < evaluation["loss"] < max(part["loss"] for part in parts)
    assert evaluation["sliding"]["stride"] == 16


def test_what_a_model_has_copied_stands_beside_what_its_author_repeats(evaluation: dict[str, Any]) -> None:
    found = evaluation["memorization"]
    assert set(found) == {"samples", "continuations", "validation"}
    assert found["samples"]["tokens"] == found["continuations"]["tokens"] == 8 * 80
    assert found["validation"]["longest_run"] > 60, "the author repeats himself line after line"
    for kind in found.values():
        assert kind["novel_fraction"]["4"] <= kind["novel_fraction"]["8"] <= kind["novel_fraction"]["16"]
        assert kind["passage"] in TEXT or "\N{REPLACEMENT CHARACTER}" in kind["passage"]


def test_of_a_text_too_short_to_tell_two_runs_that_is_said(small: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text(TEXT[:300])
    found = json.loads(here("evaluate", small / "run", "--against", small / "run", "--text", tmp_path / "short.txt").out)
    assert (found["difference"]["standard_error"], found["difference"]["significant"]) == (None, None)
    assert found["verdict"] == "too short to tell: at least 512 tokens are needed"


def test_two_runs_are_compared_token_by_token_and_equal_ones_tie(small: Path, here: Here) -> None:
    same = json.loads(here("evaluate", small / "run", "--against", small / "run").out)
    assert same["difference"]["loss"] == 0.0
    assert same["difference"] == {"loss": 0.0, "standard_error": 0.0, "blocks": 8, "significant": False}
    assert same["verdict"] == "no significant difference"
    rounded = json.loads(here("evaluate", small / "run", "--against", small / "run", "--passages", 0).out)
    assert rounded == same


def test_a_better_run_is_called_better(small: Path, here: Here, tmp_path: Path) -> None:
    short = ["--config", "debug", "--set", "train.max_steps=1"]
    here("train", small / "dataset", "-o", tmp_path / "short", *short)
    found = json.loads(here("evaluate", small / "run", "--against", tmp_path / "short").out)
    first, second = found["runs"]
    assert found["verdict"] == "the first is better"
    assert found["difference"]["loss"] == pytest.approx(first["loss"] - second["loss"])
    assert "have different tokenizers" not in here("evaluate", tmp_path / "short", "--against", small / "run").err


def test_an_evaluation_of_other_weights_is_not_taken_for_the_runs(copied: Path, here: Here) -> None:
    folder = copied / "run"
    for words, code in (("int8", 1), ("bfloat16", 1), ("last", 0), ("published", 0)):
        here("evaluate", folder, "--weights", words, "--passages", 0, "--overlap", 0, "-o", folder / EVALUATION_FILE)
        found = read_json(folder / EVALUATION_FILE)
        assert words in found["weights"].values()
        best_is_last = found["model_sha256"] == sha256_of(folder / MODEL_FILE)
        assert best_is_last, "the last step of the small run is its best"
        told = here("compare", folder, code=code)
        assert not code or f"run `evaluate {folder} -o {folder / EVALUATION_FILE}` again" in told.err
    write_json(folder / EVALUATION_FILE, found | {"model_sha256": "0" * 64})
    with pytest.raises(MakegptError, match="is of other weights"):
        read_evaluation(folder)


def single(loss: float, error: float | None) -> Score:
    return Score(
        loss=loss,
        perplexity=None,
        bits_per_byte=None,
        standard_error=StandardErrors(loss=error, perplexity=None, bits_per_byte=None),
    )


@pytest.mark.parametrize(
    ("lead", "cell"),
    [
        (Lead(0.52, 0.046, 41, True), "+0.520 ± 0.046"),
        (Lead(-0.52, 0.046, 41, True), "-0.520 ± 0.046"),
        (Lead(0.052, 0.046, 41, False), "+0.052 ± 0.046 (n.s.)"),
        (Lead(0.0, 0.0, 41, False), "+0.000 ± 0.000 (n.s.)"),
        (Lead(0.5, None, 1, None), "+0.500 (too short to tell)"),
    ],
)
def test_a_lead_says_its_error_and_whether_it_is_significant(lead: Lead, cell: str) -> None:
    assert str(lead) == cell
    assert (-lead).loss == -lead.loss


@pytest.mark.parametrize(
    ("baselines", "cells"),
    [
        ({"bigram": (-0.5, True)}, {"bigram (counts)": "+0.500 ± 0.020"}),
        ({"bigram": (0.5, True)}, {"bigram (counts)": "-0.500 ± 0.020"}),
        ({"bigram": (0.1, False), "unigram": (-0.5, True)}, {"bigram (counts)": "-0.100 ± 0.020 (n.s.)"}),
        ({"bigram": (0.5, None)}, {"bigram (counts)": "-0.500 ± 0.020 (too short to tell)"}),
        ({"uniform": (0.5, True), "gzip": None}, {"uniform": "-0.500 ± 0.020", "gzip": "-0.500 ± 0.141"}),
        ({"uniform": (0.0, False)}, {"uniform": "+0.000 ± 0.020 (n.s.)"}),
        ({"gzip": None, "xz": None}, {"gzip": "-0.500 ± 0.141", "xz": "-0.500 ± 0.141"}),
    ],
)
def test_the_table_says_of_each_baseline_how_it_compares_with_the_model(
    evaluation: dict[str, Any], baselines: dict[str, tuple[float, bool | None] | None], cells: dict[str, str]
) -> None:
    scores = {
        name: BaselineScore(
            loss=5 - by[0] if by else 4.5,
            perplexity=None,
            bits_per_byte=None,
            lead=Lead(by[0], 0.02, 41, by[1]) if by else None,
        )
        for name, by in baselines.items()
    }
    errors = {"loss": 0.1, "perplexity": None, "bits_per_byte": None, "top_1": None, "top_5": None}
    data = evaluation | {"loss": 5.0, "blocks": 41, "standard_error": errors, "baselines": to_json(scores)}
    rows = evaluation_rows("run", from_json(Evaluation, data), 1000)
    table = {line.split("  ")[0]: line for line in comparison_table(rows)}
    for name, cell in cells.items():
        assert table[name].endswith(f"  {cell}")
    assert table["run"].endswith("-"), "the model itself"
    assert ("too short to tell: at least 512 tokens are needed" in comparison_legend(rows)) == any(
        by and by[1] is None for by in baselines.values()
    )


@pytest.mark.parametrize(("loss", "answer"), [(4.85, False), (4.5, True)])
def test_a_compressor_is_better_only_beyond_what_the_models_own_error_allows(loss: float, answer: bool) -> None:
    compressor = Score(loss=loss, perplexity=None, bits_per_byte=None)
    lead = unpaired_lead(single(5.0, 0.1), compressor, 40)
    assert lead == Lead(pytest.approx(5 - loss), pytest.approx(0.1 * math.sqrt(2)), 40, answer)
    assert unpaired_lead(single(5.0, None), compressor, 1).significant is None


def test_of_a_text_of_one_character_nothing_is_ahead(tmp_path: Path, here: Here) -> None:
    (tmp_path / "text.txt").write_text("a" * 6000)
    here("tokenize", tmp_path / "text.txt", "-o", tmp_path / "tokens", "--tokenizer", "char")
    here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "dataset", "--config", "debug")
    here("train", tmp_path / "dataset", "-o", tmp_path / "run", "--config", "debug", *TINY)
    found = json.loads(here("evaluate", tmp_path / "run", "--passages", 0, "--overlap", 0).out)
    assert (found["loss"], found["top_1"], found["standard_error"]["top_1"]) == (0.0, 1.0, None)
    assert found["baselines"]["uniform"]["lead"]["significant"] is False, "guessing is as good"


def test_the_bytes_of_words_are_those_of_the_text_they_come_back_as() -> None:
    """Counted by hand: `to be, or not to be?` is 20 bytes, of which the first word, that nothing predicts, takes 2."""
    words = WordTokenizer.train(["to be, or not to be? A rose (red) -- it 'is'. \n\n So_so."], Path())
    stretch = text_span(["to be,  or not\nto be ?"], words, "text")
    n_bytes, total, unknown = count_bytes(stretch, words)
    assert (n_bytes.total, unknown) == (18, 0)
    assert total == 18
    text = b"".join(decoded_pieces(stretch.tokens, 1, stretch.stop, words))
    assert text == b" be, or not to be?", "what a compressor is given is what the bits are divided by"


def test_where_words_are_unknown_there_are_no_bits_a_byte() -> None:
    words = WordTokenizer.train(["to be"], Path())
    config = resolve_config(load_params(), "bigram", ["model.vocab_size=4", "evaluate.overlap=0"])
    trained = TrainedModel(build_model(config.model).eval(), words, config.model, "")
    stretch = text_span(["to be or not to be"], words, "text")
    found = evaluate_with(trained, stretch, config)
    assert (found.unknown_tokens, found.bytes) == (2, 9)
    assert {score.bits_per_byte for score in (found, *found.baselines.values())} == {None}
    assert found.standard_error.bits_per_byte is None
    assert found.notes() == ["no bits/byte: 2 tokens are unknown words, whose bytes are not known"]


def test_a_text_of_a_run_whose_dataset_is_gone_is_measured_against_guessing_and_compressing(
    small: Path, here: Here, tmp_path: Path
) -> None:
    shutil.copytree(small / "run", tmp_path / "run")
    (tmp_path / "text.txt").write_text(TEXT)
    found = json.loads(here("evaluate", tmp_path / "run", "--text", tmp_path / "text.txt").out)
    assert set(found["baselines"]) == {"uniform", "gzip", "xz"}
    assert not {"memorization", "split"} & found.keys()


def test_a_model_that_has_its_text_by_heart_gives_it_back_and_that_shows() -> None:
    """A bigram whose every character is followed by the next one, trained on 40 characters of which no two are alike."""
    letters = CharTokenizer([chr(0x100 + n) for n in range(60)])
    config = resolve_config(
        load_params(), "bigram", ["model.vocab_size=60", "generate.max_new_tokens=30", "evaluate.passages=3"]
    )
    bigram = build_model(config.model)
    with torch.no_grad():
        bigram.out_head.weight.copy_(20 * torch.eye(60).roll(1, dims=1))  # type: ignore[arg-type]
    trained = TrainedModel(bigram.eval(), letters, config.model, "")
    tokens = InMemoryTokens(np.concatenate([np.arange(40), np.arange(59, 19, -1)]))  # the rest of the text goes backwards
    found = measure_recall(trained, tokens, (0, 40), (40, 80), config.evaluate, config.generate, CPU)
    assert found.continuations
    assert found.validation
    assert found.continuations.longest_run == 30
    assert (found.continuations.passage or "-") in letters.decode(range(40))
    assert found.continuations.novel_fraction["8"] == 0.0, "each passage goes on within the training text"
    assert found.validation.novel_fraction["8"] == 1.0
    assert found.validation.longest_run == 1
