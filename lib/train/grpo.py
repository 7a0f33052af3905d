"""Group-relative policy gradient: learn from answers of one's own, each with a reward (Shao et al. 2024).

The model answers each question several times. An answer that is better than the others to the same question becomes more
likely, one that is worse less likely:

    advantage  =  reward - mean reward of the group
    loss       =  -advantage · ln p(answer)  +  w · KL

KL is summed over the tokens of an answer, in nats/answer. The gradient of the first term is that of the expected
reward (Williams 1992); the mean of the group only lowers its variance. Shao et al. also divide by the group's
standard deviation, which weighs questions more that are nearly always or nearly never answered, and by an answer's
length, which weighs the tokens of long ones less. Liu et al. (2025) show that both bias the training; neither is done
here. Each batch is answered by the weights that it then changes, so there is no ratio to clip.

KL says how far the model has moved from the one that the training starts from, the reference. Without it nothing but the
reward holds the model, and a reward is seldom all that one wants.

Q questions, G answers to each, n tokens of an answer
"""

from functools import cached_property
from typing import Any, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor

from lib.chat.template import special_id, template_from_saved
from lib.data.pairs import Text
from lib.data.shuffle import batch_numbers
from lib.device.hardware import derive_seed
from lib.errors import UsageError
from lib.evaluate.log_probs import answer_nats
from lib.evaluate.span import runs_of
from lib.evaluate.windows import total_nats_of_texts
from lib.generate.short_answers import short_answers
from lib.train.objective import BatchLoss, Objective, Start, Validation


def advantages(rewards: Tensor) -> Tensor:
    """By how much each answer is better than the mean of its group: (Q, G) -> (Q, G)."""
    return rewards - rewards.mean(dim=1, keepdim=True)


def kl_terms(nats: Tensor, reference_nats: Tensor) -> Tensor:
    """An estimate of the KL divergence at each token, from -ln p of both models: (n,) -> (n,).

    r - 1 - ln r with r = p_ref / p: never negative, and in the mean over sampled tokens the divergence (Schulman 2020, k3).
    """
    log_ratio = nats - reference_nats
    return log_ratio.exp() - 1 - log_ratio


def reward_exact(answer: list[int], right: list[int]) -> float:
    """1 for the right answer, its end included, else 0."""
    return float(answer == right)


def reward_contains(answer: list[int], right: list[int]) -> float:
    """1 for an answer in which the tokens of the right one stand somewhere, else 0: easier to write, and to cheat."""
    text = right[:-1]
    return float(any(answer[at : at + len(text)] == text for at in range(len(answer) - len(text) + 1)))


REWARDS = {"exact": reward_exact, "contains": reward_contains}


_QUESTIONS_AT_ONCE = 32  # in a validation


class Question(NamedTuple):
    """The ids before the last answer of a conversation, and that answer with its end."""

    prompt: list[int]
    answer: list[int]


class GRPO(Objective):
    """The mean loss of answers that the model itself gives to the questions of a dataset of conversations."""

    compares = True

    def _prepare(self, start: Start | None) -> None:
        assert start is not None
        model, dataset = self._model, self.dataset
        if model.config.drop_rate:
            raise UsageError(
                f"--task grpo trains the model that has answered, and model.drop_rate={model.config.drop_rate} makes it "
                "another one; use --set model.drop_rate=0"
            )
        self._reference = start.model().eval().requires_grad_(False)
        self._end = special_id(template_from_saved(dataset.tokens.chat).end, dataset.tokens.load_tokenizer())
        self._questions = self._read_questions("train")
        self._held_out = self._read_questions("val")
        self._reward = REWARDS[self.config.reward]

    def _read_questions(self, split: str) -> list[Question]:
        """The questions of a split whose answers are complete; UsageError if there is none, or no room to answer one."""
        dataset = self.dataset
        texts = [text for text in dataset.texts_of(split) if text[1].any() and text[0][text[1]][-1] == self._end]
        questions = [split_last_answer(*text) for text in texts]
        if not questions:
            raise UsageError(f"{dataset.folder} has no complete answer for {split}; use a longer context length")
        longest = max(len(question.prompt) for question in questions)
        if longest + self.config.answer_tokens > dataset.context_length + 1:
            raise UsageError(
                f"a question of {longest} tokens and an answer of train.answer_tokens={self.config.answer_tokens} do not fit "
                f"into a context of {dataset.context_length}; use a longer context length or shorter answers"
            )
        return questions

    @cached_property
    def tokens_per_step(self) -> int:
        """At most: those of questions of mean length, and of answers as long as they may be."""
        prompt = sum(len(question.prompt) for question in self._questions) // len(self._questions)
        return self.terms(0) * (prompt + self.config.answer_tokens)

    def terms(self, step: int) -> int:
        return self.config.batch_size * self.config.group_size

    def loss(self, step: int, rows: range) -> BatchLoss:
        config = self.config
        questions = self._batch(step, rows)
        repeated = [question for question in questions for _ in range(config.group_size)]
        answers = self._answer(repeated, self._draws(step, rows))
        rewards, exact = self._judge(answers, repeated)
        texts = [_text(question.prompt, answer) for question, answer in zip(repeated, answers, strict=True)]
        nats = answer_nats(self._model, texts, self.device)
        with torch.no_grad():
            reference_nats = answer_nats(self._reference, texts, self.device)
        gains = advantages(rewards.view(len(questions), -1)).flatten()
        policy = torch.stack([gain * own.sum() for gain, own in zip(gains.tolist(), nats, strict=True)]).sum()
        kl = kl_terms(torch.cat(nats), torch.cat(reference_nats)).sum()
        return BatchLoss(
            policy + config.kl_weight * kl,
            {
                "reward": rewards.sum().item(),
                "exact": exact.sum().item(),
                "kl": kl.item(),
                "completions/mean_length": float(sum(map(len, answers))),
            },
        )

    def _batch(self, step: int, rows: range | None = None) -> list[Question]:
        numbers = batch_numbers(len(self._questions), self.config.seed, step, self.config.batch_size, rows)
        return [self._questions[number] for number in numbers]

    def _answer(self, questions: Sequence[Question], draws: Tensor | None = None) -> list[list[int]]:
        """The model's answers, by the `draws`, (n, tokens), or the most likely ones."""
        if not questions:  # of fewer than there are processes
            return []
        prompts = [question.prompt for question in questions]
        return short_answers(self._model, prompts, self.config.answer_tokens, self._end, self.device, draws)

    def _draws(self, step: int, rows: range) -> Tensor:
        """What decides the answers of these rows: (rows · G, tokens), a function of (seed, step, row)."""
        shape = (self.config.group_size, self.config.answer_tokens)
        generators = [torch.Generator().manual_seed(derive_seed(self.config.seed, step, row)) for row in rows]
        return torch.cat([torch.rand(shape, generator=generator) for generator in generators])

    def _judge(self, answers: Sequence[list[int]], questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """The reward of each answer, and whether it is the right one, (n,) each."""
        pairs = [(answer, question.answer) for answer, question in zip(answers, questions, strict=True)]
        return torch.tensor([self._reward(*pair) for pair in pairs]), torch.tensor([reward_exact(*pair) for pair in pairs])

    def validate(self) -> Validation:
        """The loss of the right answers, in nats/token, and what the most likely answers are worth."""
        mine = [self._held_out[number] for number in self.group.share(len(self._held_out))]
        texts = [_text(*question) for question in mine]
        nats = total_nats_of_texts(self._model, texts, self.device)
        parts = [mine[at : at + _QUESTIONS_AT_ONCE] for at in range(0, len(mine), _QUESTIONS_AT_ONCE)]
        rewards, exact = self._judge([answer for part in parts for answer in self._answer(part)], mine)
        means = self._means({"reward": rewards.sum().item(), "exact": exact.sum().item()}, len(self._held_out))
        tokens = sum(len(question.answer) for question in self._held_out)
        return Validation(self.group.total(nats, self.device) / tokens, means)

    def describe_batch(self, step: int) -> Any:
        return [question.prompt for question in self._batch(step)]


def split_last_answer(ids: np.ndarray, learned: np.ndarray) -> Question:
    """The last answer of a conversation, (n,) ids of which some are learned, and what is before it."""
    start, stop = runs_of(learned)[-1]
    return Question(ids[:start].tolist(), ids[start:stop].tolist())


def _text(prompt: list[int], answer: list[int]) -> Text:
    return Text(np.array(prompt + answer), np.arange(len(prompt) + len(answer)) >= len(prompt))
