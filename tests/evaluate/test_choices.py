"""Multiple choice: which text a model finds the most likely, what is a tie, and what n-gram counts say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.data.pairs import Text
from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError
from lib.evaluate.baselines import count_training
from lib.evaluate.choices import Item, encode_item, evaluate_choices, read_items, task_files
from lib.evaluate.log_probs import predicted_log_probs
from lib.evaluate.span import own_dataset
from lib.ngrams.kneser_ney import KneserNey
from lib.run.folder import TrainedModel, load_run
from lib.tokenizer.gpt2 import GPT2Tokenizer
from tests.conftest import Here

CPU = torch.device("cpu")
WORDS = ["the king", "gnik eht", "my lord", "lord my m", "xqzj", "the the", "O!"]


def written(folder: Path, lines: list[Any], name: str = "task.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def question(*choices: str, answer: int = 0, prompt: str = "") -> Item:
    return Item("task, line 1", prompt, choices, answer)


@pytest.fixture
def trained(small: Path) -> TrainedModel:
    return load_run(small / "run", CPU)


def evaluated(small: Path, trained: TrainedModel, **tasks: list[Item]) -> Any:
    return evaluate_choices(trained, tasks, [10], CPU, training=own_dataset(small / "run"), ngram_order=3)


def test_a_choice_is_scored_by_the_sum_of_its_tokens_whatever_else_is_in_the_batch(trained: TrainedModel) -> None:
    texts = encode_item(question(*WORDS), trained.tokenizer, [10], 32)
    together = predicted_log_probs(trained.model, texts, CPU)
    for text, score in zip(texts, together, strict=True):
        ids = torch.from_numpy(text.ids.astype(np.int64))
        logprobs = torch.log_softmax(trained.model(ids[None, :-1])[0], dim=-1)
        assert score == pytest.approx(logprobs.gather(1, ids[1:, None]).sum().item(), abs=1e-4)


def test_only_the_choice_is_scored_and_not_the_prompt(trained: TrainedModel) -> None:
    (text, _) = encode_item(question("king", "lord", prompt="the "), trained.tokenizer, [10], 32)
    assert bytes(text.ids.tolist()) == b"the king"
    assert bytes(text.ids[text.answer].tolist()) == b" king"  # the blank is the choice's


def test_blanks_at_the_end_of_a_prompt_become_part_of_the_first_token_of_a_choice(fetched: Any) -> None:
    tokenizer = GPT2Tokenizer.train([], fetched("gpt2"))
    (text, _) = encode_item(question("Paris", "Rome", prompt="The capital of France is "), tokenizer, [50256], 64)
    assert tokenizer.decode(text.ids[text.answer].tolist()) == " Paris"
    assert text.answer.sum() == 1


def test_a_long_prompt_loses_its_beginning_and_a_long_choice_is_refused(trained: TrainedModel) -> None:
    (text, _) = encode_item(question("king", "lord", prompt="x" * 40 + "the"), trained.tokenizer, [10], 32)
    assert len(text.ids) == 33
    assert bytes(text.ids.tolist()).endswith(b"theking")
    with pytest.raises(MakegptError, match="line 1: a choice has 33 tokens, and the model a context of 32"):
        encode_item(question("y", "x" * 33), trained.tokenizer, [10], 32)


def test_a_batch_has_no_more_logits_than_memory_allows(trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = encode_item(question(*WORDS), trained.tokenizer, [10], 32)
    together = predicted_log_probs(trained.model, texts, CPU)
    counts: list[int] = []
    monkeypatch.setattr("lib.evaluate.log_probs.LOGITS_AT_ONCE", 1)
    np.testing.assert_allclose(predicted_log_probs(trained.model, texts, CPU, counts.append), together, atol=1e-4)
    assert counts == [1] * len(WORDS)


def test_weights_that_are_no_numbers_are_no_accuracy_of_0(small: Path) -> None:
    damaged = load_run(small / "run", CPU)
    with torch.no_grad():
        damaged.model.out_head.weight.fill_(torch.nan)
    with pytest.raises(MakegptError, match="not finite"):
        evaluated(small, damaged, task=[question("a", "b")])


def test_the_most_likely_choice_counts_and_a_tie_earns_its_part(small: Path, trained: TrainedModel) -> None:
    texts = encode_item(question(*WORDS), trained.tokenizer, [10], 32)
    best = int(predicted_log_probs(trained.model, texts, CPU).argmax())
    tied = question("king", "king", "xqzjxqzj", answer=1)
    result = evaluated(
        small, trained, right=[question(*WORDS, answer=best)], wrong=[question(*WORDS, answer=best - 1)], even=[tied]
    )
    accuracies = {name: (task.model.accuracy.value, task.model.ties) for name, task in result.tasks.items()}
    assert accuracies == {"right": (1.0, 0), "wrong": (0.0, 0), "even": (0.5, 1)}
    assert result.model.accuracy.value == pytest.approx(0.5)
    assert result.chance == pytest.approx((1 / 7 + 1 / 7 + 1 / 3) / 3)


def test_per_byte_a_long_choice_is_not_less_likely_for_its_length(small: Path, trained: TrainedModel) -> None:
    result = evaluated(small, trained, task=[question("the king", "k"), question("k", "the king")])
    assert result.model.accuracy.value == 0.5
    scores = [
        score / len(text.ids[text.answer])
        for text in encode_item(question("the king", "k"), trained.tokenizer, [10], 32)
        for score in predicted_log_probs(trained.model, [text], CPU)
    ]
    assert scores[0] > scores[1]
    assert result.model.accuracy_per_byte.value == 0.5


def test_counts_score_each_choice_alone(small: Path, trained: TrainedModel) -> None:
    dataset = own_dataset(small / "run")
    assert dataset is not None
    counts = KneserNey(count_training(dataset, 3, 256))

    def trigram(text: Text) -> float:
        (block,) = counts.nats(InMemoryTokens(text.ids), 0, len(text.ids))
        return -float(block["trigram"][text.answer].sum())

    items = [question(*WORDS[at:], *WORDS[:at], answer=at % 3) for at in range(len(WORDS))]
    earned = []
    for item in items:
        scores = np.array([trigram(text) for text in encode_item(item, trained.tokenizer, [10], 32)])
        top = np.isclose(scores, scores.max(), rtol=1e-6)
        earned.append(1 / top.sum() if top[item.answer] else 0)
    assert evaluated(small, trained, task=items).counts["trigram"].accuracy.value == pytest.approx(np.mean(earned))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["a", "b"], "line 1 is not an object"),
        ({"choices": ["a"], "answer": 0}, "choices must be a list of two texts or more"),
        ({"choices": ["a", ""], "answer": 0}, "none empty"),
        ({"choices": ["a", "b"], "answer": 2}, "answer must be the number of the right choice, 0 to 1, not 2"),
        ({"choices": ["a", "b"], "answer": True}, "not True"),
        ({"choices": ["a", "b"]}, "not None"),
        ({"choices": ["a", "b"], "answer": 0, "prompt": 5}, "prompt and group must be texts"),
        ({"sentence_good": "a"}, "choices must be a list"),
        ({"choices": ["a", "\ud800"], "answer": 0}, "line 1"),
    ],
)
def test_a_line_that_is_not_an_item_is_named(tmp_path: Path, line: Any, message: str) -> None:
    with pytest.raises(MakegptError, match=message):
        read_items(written(tmp_path, [line]))


def test_a_file_that_is_not_json_lines_is_named(tmp_path: Path) -> None:
    for content, message in ((b"", "has no line"), (b"{", "line 1: not valid JSON"), (b'{"a": "\xff"}', "UTF-8")):
        (tmp_path / "task.jsonl").write_bytes(content)
        with pytest.raises(MakegptError, match=message):
            read_items(tmp_path / "task.jsonl")
    with pytest.raises(MakegptError, match=r"no \.jsonl file"):
        task_files([tmp_path / "task.jsonl", written(tmp_path, []).parent / ".."])


def test_the_command_reads_blimp_and_plain_tasks_and_prints_a_table(small: Path, here: Here, tmp_path: Path) -> None:
    pair = {"sentence_good": "the king is", "sentence_bad": "is king the", "linguistics_term": "order", "UID": "swap"}
    written(tmp_path, [pair] * 3, "swap.jsonl")
    written(tmp_path, [{"prompt": "my", "choices": [" lord", " xqzj"], "answer": 0}], "next.jsonl")
    output = here("evaluate", small / "run", "--tasks", tmp_path, "--limit", 2, "--ngram-order", 2)
    result = json.loads(output.out)
    assert result["items"] == 3
    assert {name: task["items"] for name, task in result["tasks"].items()} == {"next": 1, "swap": 2}
    assert list(result["groups"]) == ["order"]
    assert list(result["counts"]) == ["unigram", "bigram"]
    assert "bigram (counts)" in output.err
    assert "chance" in output.err


@pytest.mark.parametrize("words", [("--per-token",), ("--ensemble",), ("--text", "-"), ("DATASET",)])
def test_tasks_stand_alone(small: Path, here: Here, tmp_path: Path, words: tuple[str, ...]) -> None:
    here("evaluate", small / "run", "--tasks", written(tmp_path, []), *words, code=2)
    here("evaluate", small / "run", "--limit", 3, code=2)
