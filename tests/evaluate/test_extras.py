"""Ensembles, models with counts, and models that keep learning: whole distributions, scored before anything is learned."""

import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch

from lib.artifact.io import read_json, sha256_of
from lib.config.params import load_params, resolve_config
from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError
from lib.evaluate import extras as extras_module
from lib.evaluate.comparison import compare_views, extra_rows
from lib.evaluate.dynamic import MAX_GRADIENT_NORM, dynamic_nats
from lib.evaluate.extras import Ensemble, Extra, LoadedRun, ReadsOn, WithCounts, aligned, default_extras, mixed_nats
from lib.evaluate.metrics import BlockSums
from lib.evaluate.run_view import RunView
from lib.evaluate.span import TokenSpan
from lib.evaluate.windows import predict_batches
from lib.model.registry import build_model
from lib.ngrams import counts as counts_module
from lib.ngrams.cache import CACHE_WEIGHT, UnigramCache, earlier_occurrences
from lib.ngrams.counts import NGRAM_NAMES, NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import EVALUATION_FILE, MODEL_FILE, TrainedModel
from lib.tokenizer.char import CharTokenizer
from tests.conftest import FEW, TINY, Here, Stage

CPU = torch.device("cpu")
V, T = 12, 8
TOKENIZER = CharTokenizer(list("abcdefghij ."))


def loaded_run(seed: int, *changes: str) -> LoadedRun:
    """An untrained model with strong opinions, of context `T` over `V` ids."""
    size = [f"model.vocab_size={V}", f"model.context_length={T}", "model.n_layers=1", "model.emb_dim=16"]
    config = resolve_config(load_params(), "debug", [*size, *changes]).model
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.out_head.weight.mul_(5)
    return LoadedRun(f"run{seed}", TrainedModel(model.eval(), TOKENIZER, config, f"{seed:064}"), 2.0)


@pytest.fixture(scope="module")
def counts() -> KneserNey:
    ids = np.minimum(np.random.default_rng(2).geometric(0.3, 500) - 1, V - 4)  # three ids are never counted
    return KneserNey(NGrams(InMemoryTokens(ids), [(0, 500)], 3, V))


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(3).integers(0, V, 60)


def all_extras(counts: KneserNey, lr: float = 0.5) -> list[Extra]:
    run = loaded_run(1)
    return [Ensemble([run, loaded_run(2, "model.context_length=5")]), WithCounts(run, counts), ReadsOn(run, counts, lr)]


NAMES = ["ensemble", "with_counts", "dynamic", "counts_with_cache"]


@pytest.fixture
def nats_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, np.ndarray]]:
    """nats_of(extras, ids): what each extra adds to its sums, token by token."""

    class Recorded(BlockSums):
        def __init__(self, tokens: int) -> None:
            super().__init__(tokens)
            self.values: list[float] = []

        def add(self, values: np.ndarray) -> None:
            super().add(values)
            self.values += values.tolist()

    monkeypatch.setattr(extras_module, "BlockSums", Recorded)

    def measure(extras: list[Extra], ids: np.ndarray) -> dict[str, np.ndarray]:
        span = TokenSpan(InMemoryTokens(ids), 0, len(ids))
        sums = [sums for extra in extras for sums in extra.measure(span, CPU, lambda _: None)]
        assert all(len(extra.nats.values) == len(ids) - 1 for extra in sums)  # type: ignore[attr-defined]
        return {extra.name: np.array(extra.nats.values) for extra in sums}  # type: ignore[attr-defined]

    return measure


def test_each_is_a_distribution_that_sums_to_1_over_the_whole_vocabulary(
    counts: KneserNey, ids: np.ndarray, nats_of: Callable[..., dict[str, np.ndarray]]
) -> None:
    extras = all_extras(counts)
    for length in (1, 12):  # in the first window, and in the second, after the model has learned
        sums = dict.fromkeys(NAMES, 0.0)
        for id in range(V):
            for name, nats in nats_of(extras, np.append(ids[:length], id)).items():
                sums[name] += math.exp(-nats[-1])
        assert sums == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-5)


@pytest.mark.parametrize("place", [1, 7, 8, 9, 30, 59])
def test_a_later_token_never_changes_the_score_of_an_earlier_one(
    place: int, counts: KneserNey, ids: np.ndarray, nats_of: Callable[..., dict[str, np.ndarray]]
) -> None:
    extras, other = all_extras(counts), ids.copy()
    other[place] = (ids[place] + V // 2) % V
    before, after = nats_of(extras, ids), nats_of(extras, other)
    for name in NAMES:
        assert before[name][: place - 1].tolist() == pytest.approx(after[name][: place - 1].tolist(), abs=1e-6)
        assert before[name][place - 1] != pytest.approx(after[name][place - 1], abs=1e-6)


def plain_nats(run: LoadedRun, ids: np.ndarray) -> np.ndarray:
    return np.concatenate([nats for nats, _ in predict_batches(run.trained.model, InMemoryTokens(ids), 0, len(ids), CPU)])


def dynamic(run: LoadedRun, ids: np.ndarray, lr: float) -> np.ndarray:
    return np.concatenate(list(dynamic_nats(run.trained.model, InMemoryTokens(ids), 0, len(ids), CPU, lr)))


@pytest.mark.parametrize("changes", [[], ["model.positions=rotary", "model.norm=rms"], ["model.layer_impl=naive"]])
def test_each_window_is_scored_and_then_learned_from(changes: list[str], ids: np.ndarray) -> None:
    run = loaded_run(1, *changes)
    plain = plain_nats(run, ids)
    student = copy.deepcopy(run.trained.model)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.3)
    expected: list[float] = []
    for at in range(0, len(ids) - 1, T):
        window = torch.from_numpy(ids[at : at + T + 1])
        losses = -torch.log_softmax(student(window[None, :-1])[0], -1)[torch.arange(len(window) - 1), window[1:]]
        expected += losses.tolist()
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
    nats = dynamic(run, ids, 0.3)
    assert nats == pytest.approx(expected, abs=1e-5)
    assert nats[:T] == pytest.approx(plain[:T], abs=1e-5)
    assert (abs(nats[T:] - plain[T:]) > 1e-4).all()
    assert dynamic(run, ids, 0.0) == pytest.approx(plain, abs=1e-5)


def test_a_text_that_repeats_itself_is_learned() -> None:
    run, ids = loaded_run(1), np.tile(np.random.default_rng(4).integers(0, V, T), 12)
    assert dynamic(run, ids, 0.3)[-T:].mean() < plain_nats(run, ids)[-T:].mean() - 1


def test_the_model_itself_does_not_change(ids: np.ndarray) -> None:
    model = loaded_run(1).trained.model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        losses = dynamic_nats(model, InMemoryTokens(ids), 0, len(ids), CPU, 0.5)
        next(losses), next(losses)
        losses.close()  # in the middle of the text
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(weight.grad is None and not weight.requires_grad for weight in model.parameters())
        assert model.training == training


def test_the_nats_of_a_mean_of_probabilities() -> None:
    p = np.array([[0.5, 0.1, 1.0], [0.1, 0.3, 0.5], [0.3, 0.2, 0.75]])
    assert mixed_nats(-np.log(p)) == pytest.approx(-np.log([0.3, 0.2, 0.75]))
    assert mixed_nats(np.array([[2000.0, 0.0], [2001.0, 3000.0]])) == pytest.approx(
        [2000 + math.log(2 / (1 + math.exp(-1))), math.log(2)]
    )


@pytest.mark.parametrize(("first", "second"), [([10], [10]), ([3, 7], [1] * 10), ([0, 4, 0, 6], [9, 1]), ([10, 5], [4, 6])])
def test_streams_in_parts_of_any_size_are_read_together(first: list[int], second: list[int]) -> None:
    streams = [np.split(sign * np.arange(sum(sizes)), np.cumsum(sizes)[:-1]) for sign, sizes in ((1, first), (-1, second))]
    together = np.concatenate(list(aligned([iter(stream) for stream in streams])), axis=1)
    assert together.tolist() == [list(range(10)), [-n for n in range(10)]]


def test_an_ensemble_is_at_least_as_good_as_its_members_on_average(ids: np.ndarray) -> None:
    runs = [loaded_run(1), loaded_run(2, "model.context_length=5"), loaded_run(3)]
    (ensemble,) = Ensemble(runs).measure(TokenSpan(InMemoryTokens(ids), 0, len(ids)), CPU, lambda _: None)
    losses = [plain_nats(run, ids).mean() for run in runs]
    assert [member.loss for member in ensemble.members] == pytest.approx(losses, abs=1e-5)
    assert ensemble.nats.total / ensemble.nats.count < np.mean(losses)
    assert (ensemble.label, ensemble.seconds) == ("3 models", 6.0)
    assert ensemble.parameters == sum(sum(w.numel() for w in run.trained.model.parameters()) for run in runs)
    (same,) = Ensemble([runs[0], runs[0]]).measure(TokenSpan(InMemoryTokens(ids), 0, len(ids)), CPU, lambda _: None)
    assert same.nats.total == pytest.approx(losses[0] * (len(ids) - 1), rel=1e-6)


def test_if_the_seconds_of_a_member_are_not_known_those_of_the_ensemble_are_not(ids: np.ndarray) -> None:
    runs = [loaded_run(1), loaded_run(2)._replace(seconds=None)]
    (ensemble,) = Ensemble(runs).measure(TokenSpan(InMemoryTokens(ids), 0, len(ids)), CPU, lambda _: None)
    assert ensemble.seconds is None


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_cache_holds_the_frequencies_of_the_tokens_already_scored(
    block: int, counts: KneserNey, ids: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "_BLOCK", block)
    tokens, start = InMemoryTokens(ids), 4
    parts = list(UnigramCache(counts).nats(tokens, start, len(ids)))
    assert len(parts) == -(-(len(ids) - start) // block)
    p_counts = counts.rows(tokens, np.arange(start, len(ids)))
    expected = []
    for place in range(start, len(ids)):
        p, scored = p_counts[place - start, ids[place]], ids[start:place].tolist()
        if scored:
            p = (1 - CACHE_WEIGHT) * p + CACHE_WEIGHT * scored.count(ids[place]) / len(scored)
        expected.append(-math.log(p))
    assert np.concatenate([part[NGRAM_NAMES[3]] for part in parts]) == pytest.approx(expected, rel=1e-5)


def test_earlier_occurrences_are_counted() -> None:
    assert earlier_occurrences(np.array([5, 3, 5, 5, 0, 3])).tolist() == [0, 0, 1, 2, 0, 1]


@pytest.fixture(scope="module")
def two_runs(small: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with run1/, which was evaluated with all extras, and run2/, another seed; and plain.json, without extras."""
    folder = tmp_path_factory.mktemp("extras")
    for seed in (1, 2):
        settings = (*TINY, "--set", f"train.seed={seed}", "--set", "train.learning_rate=1e-2")
        stage("train", small / "dataset", "-o", folder / f"run{seed}", "--config", "debug", *settings)
    stage("evaluate", folder / "run1", "-o", folder / "plain.json", *FEW)
    options = ("--ensemble", "--with-counts", "--dynamic", "--ngram-order", 3, *FEW)
    weights = sha256_of(folder / "run1" / MODEL_FILE)
    stage("evaluate", folder / "run1", folder / "run2", "-o", folder / "run1" / EVALUATION_FILE, *options)
    assert sha256_of(folder / "run1" / MODEL_FILE) == weights
    return folder


def test_extras_stand_in_a_section_of_their_own(two_runs: Path) -> None:
    plain, evaluation = read_json(two_runs / "plain.json"), read_json(two_runs / "run1" / EVALUATION_FILE)
    extras: list[dict[str, Any]] = evaluation["extras"]
    assert "extras" not in plain
    assert [extra["name"] for extra in extras] == NAMES
    labels = ["2 models", "GPT + counts", "reads on", "trigram (counts), reads on"]
    assert [extra["label"] for extra in extras] == labels
    for key in ("loss", "standard_error", "top_1", "sliding", "loss_by_position", "model_sha256"):
        assert evaluation[key] == plain[key]
    for extra in extras:
        assert extra["lead"]["loss"] == pytest.approx(evaluation["loss"] - extra["loss"])
        assert extra["standard_error"]["loss"] > 0
    ensemble, hybrid, dynamic_score, cache = extras
    assert [member["run"] for member in ensemble["members"]] == ["run1", "run2"]
    assert ensemble["members"][0]["loss"] == pytest.approx(evaluation["loss"], abs=1e-6)
    assert ensemble["parameters"] == 2 * hybrid["parameters"] == 2 * dynamic_score["parameters"]
    assert ensemble["seconds"] > hybrid["seconds"] == dynamic_score["seconds"]
    assert "parameters" not in cache
    # the mean of two probabilities is at least half of each
    assert hybrid["loss"] <= min(evaluation["loss"], evaluation["baselines"]["trigram"]["loss"]) + math.log(2)


def test_extras_are_labeled_and_never_ranked_with_plain_models(two_runs: Path, here: Here, tmp_path: Path) -> None:
    views = [RunView(two_runs / "run1")]
    plain, extras = compare_views(views), extra_rows(views)
    assert not any(row.extra for row in plain)
    assert [row.extra for row in extras] == ["2 models", "GPT + counts", "reads on", "trigram (counts), reads on"]
    shown = here("compare", two_runs / "run1").out
    first, second = shown.split("val split, 797 tokens, extras")
    assert "run1: 2 models" not in first
    assert [line.split("  ")[0] for line in second.splitlines()[1:5]] == [row.name for row in extras]
    rows = [json.loads(line) for line in here("compare", two_runs / "run1", "--json").out.splitlines()]
    assert [row.get("extra") for row in rows] == [None] * len(plain) + [row.extra for row in extras]
    here("report", two_runs / "run1", "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    ranking, separate = page[page.index("the best first") :].split("Extras use more than one model", 1)
    assert "GPT + counts" not in ranking
    assert all(label in separate for label in ("2 models", "GPT + counts", "reads on", "trigram (counts), reads on"))


def test_without_extras_nothing_is_said_of_them(small: Path, copied: Path, here: Here) -> None:
    message = here("evaluate", copied / "run", "-o", copied / "run" / EVALUATION_FILE, *FEW).err
    assert "extras" not in message
    assert "extras" not in here("compare", copied / "run").out


def test_the_parameters_of_an_ensemble_do_not_depend_on_the_format_of_its_weights(two_runs: Path, here: Here) -> None:
    words = ("evaluate", two_runs / "run1", two_runs / "run2", "--ensemble", *FEW)
    result = json.loads(here(*words, "--weights", "int8", "--overlap", 0).out)
    (ensemble,) = read_json(two_runs / "run1" / EVALUATION_FILE)["extras"][:1]
    assert result["extras"][0]["parameters"] == ensemble["parameters"]
    assert result["weights"]["format"] == "int8"


def test_a_dataset_may_follow_the_runs_of_an_ensemble(small: Path, two_runs: Path, here: Here) -> None:
    words = ("evaluate", two_runs / "run1", two_runs / "run2", small / "dataset", "--ensemble", "--overlap", 0, *FEW)
    (ensemble,) = json.loads(here(*words).out)["extras"]
    assert ensemble["label"] == "2 models"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("RUN1 RUN2 RUN2", 2, "for several runs use --ensemble, or --against RUN"),
        ("RUN1 --ensemble", 2, "--ensemble needs two runs or more"),
        ("RUN1 DATASET --ensemble", 2, "--ensemble needs two runs or more"),
        ("RUN1 RUN2 RUN1 --ensemble", 2, "one of them is given twice"),
        ("RUN1 RUN2 --ensemble --per-token", 2, "give --per-token or --ensemble, not both"),
        ("RUN1 --against RUN2 --dynamic", 2, "give --against or --dynamic, not both"),
        ("RUN1 --dynamic --weights int8", 2, "needs float32 weights; leave out --weights int8"),
        ("RUN1 --dynamic --dynamic-lr -1", 2, "evaluate.dynamic_lr=-1 must be at least 0"),
        ("MOVED --text PLAY --with-counts", 1, "there is no training text to count for moved; name a dataset"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    words: str, code: int, says: str, small: Path, two_runs: Path, here: Here, tmp_path: Path
) -> None:
    places = {"RUN1": two_runs / "run1", "RUN2": two_runs / "run2", "DATASET": small / "dataset", "PLAY": small / "play.txt"}
    places["MOVED"] = tmp_path / "moved"  # a run that does not find its dataset
    shutil.copytree(small / "run", places["MOVED"])
    assert says in here("evaluate", *(places.get(word, word) for word in words.split()), code=code).err


def test_models_of_different_vocabularies_are_no_ensemble() -> None:
    run, other = loaded_run(1), loaded_run(2)
    other = other._replace(trained=replace(other.trained, tokenizer=CharTokenizer(list("jihgfedcba ."))))
    config = resolve_config(load_params(), "debug").evaluate
    with pytest.raises(MakegptError, match="run2 has another tokenizer than run1; the models of an ensemble must share"):
        default_extras([run, other], None, config, ensemble=True)
