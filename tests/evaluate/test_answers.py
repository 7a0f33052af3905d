"""Evaluation on conversations: which tokens count, what each is predicted from, and what a model answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.evaluate.answers import sample_questions, training_answers
from lib.evaluate.baselines import count_training
from lib.evaluate.span import AnswerSpan, joined, runs_of
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import load_run
from tests.chat.test_template import TOKENIZER
from tests.conftest import Here

CPU = torch.device("cpu")
T = 48
SETTINGS = ("--config", "debug", "--set", f"model.context_length={T}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 80 conversations: a letter is answered with it several times, or, three times of four, with `no`."""
    folder = tmp_path_factory.mktemp("answers")
    TOKENIZER.save(folder / "tokenizer.json")
    lines = []
    for number in range(80):
        letter = "abcdefgh"[number * 5 % 8]
        messages = [
            {"role": "user", "content": letter},
            {"role": "assistant", "content": "no" if number % 4 else letter * (2 + number % 9)},
        ]
        lines.append(json.dumps({"messages": messages}))
    (folder / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def run(folder: Path, here: Here) -> Path:
    """Its run/ over dataset/, which has a test split."""
    if not (folder / "run").exists():
        here("tokenize", "--chat", folder / "talk.jsonl", "--tokenizer", folder, "-o", folder / "tokens")
        fractions = ("--val-fraction", 0.25, "--test-fraction", 0.25)
        here("build-dataset", folder / "tokens", "-o", folder / "dataset", *SETTINGS, *fractions)
        here("train", folder / "dataset", "-o", folder / "run", *SETTINGS, "--quiet", "--set", "train.batch_size=6")
    return folder / "run"


def evaluation(here: Here, run: Path, *words: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(here("evaluate", run, *words, "--ngram-order", 3).out)
    return result


def test_the_loss_is_that_of_the_answers_each_alone(run: Path, here: Here) -> None:
    dataset, model = Dataset(run.parent / "dataset"), load_run(run, CPU).model
    scores = evaluation(here, run)
    nats, count, hits, n_bytes = 0.0, 0, 0, 0
    for ids, learned in dataset.texts_of("val"):
        logits = model(torch.from_numpy(ids.astype(np.int64))[None, :-1])[0]
        for place in np.flatnonzero(learned):
            nats -= logits[place - 1].log_softmax(-1)[ids[place]].item()
            hits += int(logits[place - 1].argmax() == ids[place])
            n_bytes += len(TOKENIZER.token_bytes(int(ids[place]))) if ids[place] > 2 else 0
        count += int(learned.sum())
    assert (scores["tokens"], scores["bytes"], scores["split"]) == (count, n_bytes, "val")
    assert scores["loss"] == pytest.approx(nats / count, rel=1e-5)
    assert scores["top_1"] == pytest.approx(hits / count)
    assert scores["bits_per_byte"] == pytest.approx(nats / np.log(2) / n_bytes, rel=1e-5)
    assert scores["loss"] == pytest.approx(read_published_loss(run), rel=1e-5), "as training reports it"
    assert list(scores["baselines"]) == ["uniform", "unigram", "bigram", "trigram", "add-one bigram"]
    assert scores["baselines"]["uniform"]["loss"] == pytest.approx(np.log(TOKENIZER.vocab_size))


def read_published_loss(run: Path) -> float:
    loss: float = json.loads((run / "manifest.json").read_text())["metadata"]["published_val_loss"]
    return loss


def test_no_prediction_crosses_from_one_conversation_to_another(run: Path) -> None:
    """Each conversation costs the same alone, for the model and for the counts."""
    dataset, model = Dataset(run.parent / "dataset"), load_run(run, CPU).model
    span = AnswerSpan(dataset.tokens, *dataset.split("test"), dataset, "test")
    smoothing = KneserNey(count_training(dataset, 3, TOKENIZER.vocab_size))
    nats = np.concatenate([nats for nats, _, _ in span.predict(model, CPU)])
    counted = np.concatenate([block["trigram"] for block in span.counted(smoothing)])
    at = 0
    for text in reversed(span.texts):
        alone = AnswerSpan(dataset.tokens, 0, 0)
        alone.__dict__["texts"] = [text]
        at -= alone.predicted
        mine = slice(at, at + alone.predicted or None)
        assert np.array_equal(np.concatenate([part for part, _, _ in alone.predict(model, CPU)]), nats[mine])
        assert np.array_equal(next(alone.counted(smoothing))["trigram"], counted[mine])
    assert -at == len(nats) == len(counted) == span.predicted


def test_ngrams_are_counted_where_they_end_in_an_answer() -> None:
    """Two texts, `1 2 | 3 3` and `1 2 | 3 4`: after `2` stands 3 twice, and nothing is counted after 1."""
    ids, learned = np.array([1, 2, 3, 3, 1, 2, 3, 4]), np.array([0, 0, 1, 1, 0, 0, 1, 1], bool)
    ngrams = NGrams(InMemoryTokens(ids), [(0, 4), (4, 8)], 2, 5, lambda start, stop: learned[start:stop])
    unigrams, bigrams = ngrams.orders
    assert dict(zip(unigrams.keys.tolist(), unigrams.counts.tolist(), strict=True)) == {1: 0, 2: 0, 3: 3, 4: 1}
    assert unigrams.continuations is not None
    assert dict(zip(unigrams.keys.tolist(), unigrams.continuations.tolist(), strict=True)) == {1: 0, 2: 0, 3: 2, 4: 1}
    pairs = {(int(unigrams.keys[key // 5]), int(key % 5)): int(n) for key, n in zip(bigrams.keys, bigrams.counts, strict=True)}
    assert pairs == {(1, 2): 0, (2, 3): 2, (3, 3): 1, (3, 4): 1}
    rows = KneserNey(ngrams).rows(InMemoryTokens(ids), np.array([1, 2, 3]))
    assert rows.sum(axis=1) == pytest.approx([1, 1, 1])


def test_questions_are_a_seeded_sample_up_to_the_last_answer(run: Path) -> None:
    dataset = Dataset(run.parent / "dataset")
    span = AnswerSpan(dataset.tokens, *dataset.split("test"), dataset, "test")
    first, again, other = (sample_questions(span, TOKENIZER, 5, seed) for seed in (1, 1, 2))
    assert [question.prompt.tolist() for question in first] == [question.prompt.tolist() for question in again]
    assert [question.prompt.tolist() for question in first] != [question.prompt.tolist() for question in other]
    assert len(sample_questions(span, TOKENIZER, 1000, 1)) == 20
    for question in first:
        prompt = TOKENIZER.decode(question.prompt.tolist())
        assert prompt.startswith("<|im_start|>user\n")
        assert prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert TOKENIZER.decode(question.answer.tolist()).endswith("<|im_end|>")
        assert "<" not in TOKENIZER.decode(question.reference.tolist())
    assert runs_of(np.array([0, 1, 1, 0, 1], bool)) == [(1, 3), (4, 5)]


def test_a_copied_run_ends_with_the_answer_it_is_from(run: Path) -> None:
    dataset = Dataset(run.parent / "dataset")
    index, (ids, learned) = training_answers(dataset), joined(dataset.texts_of("train"))
    (start, stop), (again, end) = runs_of(learned)[:2]
    texts = [ids[start:stop], np.concatenate([ids[start:stop], ids[again:end]]), ids[start - 3 : stop]]
    for text in texts:
        assert len(index.longest_run([text])) in (stop - start, end - again)


def test_answers_are_compared_with_the_references(run: Path, here: Here) -> None:
    output = here("evaluate", run, "--passages", 20, "--ngram-order", 2)
    answers = json.loads(output.out)["answers"]
    assert answers["questions"] == 20
    assert answers["finished"] > 0.5
    assert 0 < answers["exact_match"] < 1
    assert answers["references"]["longest_run"] > 1
    assert [set(sample) for sample in answers["samples"]] == [{"prompt", "answer", "reference"}] * 3
    assert all(sample["prompt"].endswith("<|im_start|>assistant\n") for sample in answers["samples"])
    assert f"reference {answers['samples'][0]['reference']!r}" in output.err
    assert f"exact match {answers['exact_match']:.1%}" in output.err
    assert "answers" not in evaluation(here, run, "--passages", 0)


def test_two_runs_are_compared_on_the_answers(run: Path, here: Here) -> None:
    same = evaluation(here, run, "--split", "test", "--against", run)
    assert same["difference"]["loss"] == 0
    scores = [json.loads(line) for line in here("evaluate", run, "--split", "test", "--per-token").out.splitlines()]
    losses = [-score["logprob"] for score in scores]
    assert np.mean(losses) == pytest.approx(same["runs"][0]["loss"], rel=1e-5)
    tokens = Dataset(run.parent / "dataset").tokens
    assert [score["id"] for score in scores] == [int(tokens.read(at, at + 1)[0]) for at in [s["position"] for s in scores]]


def test_what_needs_running_text_is_refused(run: Path, here: Here) -> None:
    assert "--dynamic learns from the text" in here("evaluate", run, "--dynamic", code=2).err
