"""Accuracy, its interval, the confusion matrix; classifiers that count words; `classify` and `evaluate` as commands."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.evaluate.classification import mcnemar_p, read_class_evaluation, softmax, wilson_interval
from lib.evaluate.word_counts import LogisticRegression, MostFrequent, NaiveBayes
from tests.conftest import Here, Stage
from tests.train.test_classes import SETTINGS, labeled_csv

TEXTS = ["win cash now", "cash prize", "see you now", "you win you see", "call me", "Call cash!"]
LABELS = np.array([1, 1, 0, 0, 2, 2])


def test_an_interval_is_wilson_s() -> None:
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_mcnemar_s_test_is_the_sign_test_of_what_one_alone_has_right() -> None:
    assert mcnemar_p(0, 5) == 2 / 2**5
    assert mcnemar_p(5, 0) == mcnemar_p(0, 5)
    assert mcnemar_p(3, 3) == mcnemar_p(0, 0) == 1.0


def test_the_most_frequent_class_is_always_the_answer() -> None:
    assert MostFrequent(TEXTS, np.array([0, 1, 1, 0, 1, 2]), 3).predict(["x", "win"]).tolist() == [1, 1]


def test_naive_bayes_is_counted_by_hand() -> None:
    model = NaiveBayes(["a a b", "b c"], np.array([0, 1]), 2)
    # class 0: a 3/6, b 2/6, c 1/6; class 1: a 1/5, b 2/5, c 2/5
    assert np.allclose(np.exp(model._words), [[3 / 6, 2 / 6, 1 / 6], [1 / 5, 2 / 5, 2 / 5]])
    assert model.predict(["a", "c", "b", "A b", "unknown"]).tolist() == [0, 1, 1, 0, 0]
    assert NaiveBayes(TEXTS, LABELS, 3).predict(TEXTS).tolist() == LABELS.tolist()


def word_counts(model: LogisticRegression) -> np.ndarray:
    vocabulary = model._vocabulary
    return np.array([np.bincount(vocabulary.words(text), minlength=len(vocabulary.columns)) for text in TEXTS])


def probabilities(model: LogisticRegression) -> np.ndarray:
    return softmax(word_counts(model) @ model.weights[:-1] + model.weights[-1])


def test_logistic_regression_is_at_the_least_of_its_loss() -> None:
    model = LogisticRegression(TEXTS, LABELS, 3)
    errors = probabilities(model) - np.eye(3)[LABELS]
    assert np.allclose(word_counts(model).T @ errors + model.weights[:-1], 0, atol=1e-5)  # its gradient
    assert np.allclose(errors.sum(axis=0), 0, atol=1e-5)
    assert model.predict(TEXTS).tolist() == LABELS.tolist()


def test_logistic_regression_gives_the_probabilities_that_scikit_learn_gave() -> None:
    """scikit-learn 1.9.1, with its default regularization, for the first and the last text."""
    golden = [[0.155574, 0.663735, 0.180691], [0.102855, 0.285323, 0.611822]]
    assert np.allclose(probabilities(LogisticRegression(TEXTS, LABELS, 3))[[0, 5]], golden, atol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with tokens/, dataset/ and a run/ that has learned the classes plain and win."""
    folder = tmp_path_factory.mktemp("classes")
    (folder / "texts.csv").write_text(labeled_csv(60))
    stage("tokenize", "--labels", folder / "texts.csv", "--tokenizer", "bytes", "-o", folder / "tokens")
    splits = ("--val-fraction", 0.2, "--test-fraction", 0.2, "--context-length", 32)
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", *splits)
    stage("train", folder / "dataset", *SETTINGS, "--set", "train.learning_rate=1e-2", "--max-steps", 40, "-o", folder / "run")
    return folder


def test_evaluate_shows_accuracy_matrix_and_baselines(folder: Path, here: Here) -> None:
    output = here("evaluate", folder / "run", "--split", "test")
    result = json.loads(output.out)
    confusion = np.array(result["confusion"])
    assert confusion.sum() == result["texts"] == 12
    assert result["accuracy"] == np.trace(confusion) / 12
    assert result["interval"] == list(wilson_interval(int(np.trace(confusion)), 12))
    score = result["scores"]["win"]
    assert score["recall"] == confusion[1, 1] / confusion[1].sum()
    assert score["precision"] == confusion[1, 1] / confusion[:, 1].sum()
    assert math.isclose(score["f1"], 2 / (1 / score["precision"] + 1 / score["recall"]))
    assert list(result["baselines"]) == ["most frequent class", "naive Bayes", "logistic regression"]
    assert result["baselines"]["naive Bayes"]["accuracy"] == 1.0
    most_frequent = result["baselines"]["most frequent class"]
    assert (
        most_frequent["model_right_alone"] - most_frequent["right_alone"]
        == np.trace(confusion) - 12 * most_frequent["accuracy"]
    )
    for words in ("test split, 12 texts", "naive Bayes", "precision"):
        assert words in output.err


def test_the_figure_needs_an_evaluation_and_shows_it(folder: Path, here: Here, tmp_path: Path) -> None:
    plot = ("plot", "classes", folder / "run", "-o", tmp_path / "classes.svg")
    (folder / "run" / "evaluation.json").unlink(missing_ok=True)
    assert "has not been evaluated" in here(*plot, code=1).err
    here("evaluate", folder / "run", "-o", folder / "run" / "evaluation.json")
    assert read_class_evaluation(folder / "run").texts == 12
    here(*plot)
    assert "<svg" in (tmp_path / "classes.svg").read_text()


@pytest.mark.parametrize("words", [("compare",), ("report", "-o", "REPORT"), ("plot", "loss", "-o", "REPORT")])
def test_tables_of_losses_refuse_a_classifier(folder: Path, here: Here, tmp_path: Path, words: tuple[str, ...]) -> None:
    command, *rest = (str(tmp_path / "out.svg") if word == "REPORT" else word for word in words)
    kind = rest[:1] if command == "plot" else []
    assert (
        "is a classifier, whose accuracy is not compared"
        in here(command, *kind, folder / "run", *rest[len(kind) :], code=2).err
    )


def test_evaluate_refuses_other_labels_and_modes(folder: Path, here: Here, tmp_path: Path) -> None:
    assert "--dynamic is for models of texts" in here("evaluate", folder / "run", "--dynamic", code=2).err
    (tmp_path / "other.csv").write_text("label,text\nphish,a\nwin,b\nphish,a\nwin,b\n")
    here("tokenize", "--labels", tmp_path / "other.csv", "--tokenizer", "bytes", "-o", tmp_path / "tokens")
    here("build-dataset", tmp_path / "tokens", "-o", tmp_path / "data", "--context-length", 32, "--val-fraction", 0.25)
    refused = here("evaluate", folder / "run", tmp_path / "data", code=1).err
    assert "has the label 'phish', which" in refused
    assert "it knows plain, win" in refused


def test_classify_prints_a_label_and_its_probability_per_line(folder: Path, here: Here, stage: Stage) -> None:
    lines = here("classify", folder / "run", "ok then PRIZE 3", "what a day today 2").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["win", "plain"]
    assert all(0.5 <= float(line.split("\t")[1]) <= 1 for line in lines)
    texts = [f"call me later {'PRIZE' if n % 2 else 'today'} {n}" for n in range(70)]
    piped = stage("classify", folder / "run", "-", "--json", input="\n".join(texts)).stdout.splitlines()
    answers = [json.loads(line) for line in piped]
    assert [answer["text"] for answer in answers] == texts
    turned = here("classify", folder / "run", *texts[::-1]).out.splitlines()[::-1]
    assert [answer["label"] for answer in answers] == [line.split("\t")[0] for line in turned]
    for answer in answers:
        assert math.isclose(sum(answer["probabilities"].values()), 1)
        assert answer["probability"] == answer["probabilities"][answer["label"]]


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ((), 2, "no TEXT given"),
        (("-", "a"), 2, "- is stdin"),
        (("a", " "), 1, "text 2 is empty"),
        (("x" * 40, "--strict"), 1, "text 1 has 40 tokens, more than the context of 32"),
    ],
)
def test_classify_refuses(folder: Path, here: Here, words: tuple[Any, ...], code: int, problem: str) -> None:
    assert problem in here("classify", folder / "run", *words, code=code).err


def test_classify_cuts_long_texts_and_says_so(folder: Path, here: Here) -> None:
    output = here("classify", folder / "run", "what a day PRIZE" + " " * 40 + "x", "naïve 😀")
    assert "1 texts were longer than the context of 32 tokens" in output.err
    assert len(output.out.splitlines()) == 2


def test_classify_needs_a_classifier(small: Path, here: Here) -> None:
    assert "is no classifier; `train DATASET" in here("classify", small / "run", "a", code=2).err
    assert "`plot loss" in here("plot", "classes", small / "run", "-o", small / "x.svg", code=2).err
