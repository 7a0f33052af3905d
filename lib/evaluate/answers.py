"""What a model answers: how often exactly the reference, and how much of it is copied from the answers it was trained on.

A seeded sample of the conversations that a span has, each up to its last answer, is answered greedily. So the time is bounded
by the number of questions times the tokens of an answer.
"""

from dataclasses import dataclass, replace
from typing import Any, Mapping

import numpy as np
import torch

from lib.chat.template import special_id, template_from_saved
from lib.config.schema import EvaluateConfig, GenerateConfig
from lib.data.dataset import Dataset
from lib.data.shards import InMemoryTokens
from lib.data.shuffle import permute
from lib.evaluate.memorization import CopyIndex, measure_copying
from lib.evaluate.metrics import BlockSums
from lib.evaluate.results import AnswerSample, AnswerScores
from lib.evaluate.span import AnswerSpan, TokenSpan, joined, runs_of
from lib.evaluate.windows import OnTokens
from lib.generate.quantize import InferenceModel
from lib.generate.request import Prompt, Request, complete, make_requests
from lib.run.folder import TrainedModel
from lib.tokenizer.base import Tokenizer

_SAMPLES = 3  # answers that an evaluation keeps


@dataclass(frozen=True)
class Question:
    """What comes before the last answer of a conversation, and that answer: ids, (n,); `end` is the id that ends it."""

    prompt: np.ndarray
    answer: np.ndarray
    end: int

    @property
    def reference(self) -> np.ndarray:
        """The answer without its end, which an answer that was cut lacks."""
        return self.answer[:-1] if self.answer[-1] == self.end else self.answer


def sample_questions(span: AnswerSpan, tokenizer: Tokenizer, count: int, seed: int) -> list[Question]:
    """`count` conversations of `span` in an order that follows from `seed`, or all of them if there are no more."""
    assert span.training is not None
    end = special_id(template_from_saved(span.training.tokens.chat).end, tokenizer)
    answered = [(ids, runs_of(learned)[-1]) for ids, learned in span.texts if learned.any()]
    chosen = [answered[permute(number, len(answered), (seed, 0))] for number in range(min(count, len(answered)))]
    return [Question(ids[:start], ids[start:stop], end) for ids, (start, stop) in chosen]


@dataclass(frozen=True)
class GreedyAnswers:
    """Exact matches and copies of greedy answers to `config.passages` questions, each of `generate.max_new_tokens` at most."""

    training: Dataset
    config: EvaluateConfig
    generate: GenerateConfig
    passes = 0

    def measure(
        self, trained: TrainedModel, span: TokenSpan, n_bytes: BlockSums | None, device: torch.device, on_tokens: OnTokens
    ) -> Mapping[str, Any]:
        assert isinstance(span, AnswerSpan)
        tokenizer = trained.tokenizer
        questions = sample_questions(span, tokenizer, self.config.passages, self.generate.seed)
        prompts = [Prompt("", question.prompt.tolist(), {}, question.end) for question in questions]
        greedy = replace(self.generate, temperature=0.0, repetition_penalty=1.0)
        model = trained.model if isinstance(trained.model, InferenceModel) else InferenceModel(trained.model)
        answers = complete(model, make_requests(tokenizer, prompts, greedy, logprobs=False), device)
        samples = [
            AnswerSample(tokenizer.decode(prompt.ids), answer.text, tokenizer.decode(question.reference.tolist()))
            for prompt, answer, question in zip(prompts, answers[:_SAMPLES], questions, strict=False)
        ]
        exact = [is_exact(answer, question) for answer, question in zip(answers, questions, strict=True)]
        rate, n = float(np.mean(exact)), len(exact)
        copying = measure_copying(
            training_answers(self.training),
            tokenizer,
            {
                "answers": [np.array(answer.tokens, np.uint32) for answer in answers],
                "references": [question.reference for question in questions],
            },
        )
        return {
            "answers": AnswerScores(
                questions=n,
                max_new_tokens=greedy.max_new_tokens,
                exact_match=rate,
                standard_error=(rate * (1 - rate) / n) ** 0.5 if 0 < rate < 1 else None,
                finished=float(np.mean([answer.finish_reason == "end_of_text" for answer in answers])),
                **copying,
                samples=tuple(samples),
            )
        }


def is_exact(answer: Request, question: Question) -> bool:
    """Whether a finished answer has the text of the reference."""
    tokenizer = answer.tokenizer
    same = tokenizer.decode_bytes(answer.tokens) == tokenizer.decode_bytes(question.reference.tolist())
    return answer.finish_reason == "end_of_text" and same


def training_answers(training: Dataset) -> CopyIndex:
    """The answers of the training split; no run of tokens crosses from one into the next."""
    ids, learned = joined(training.texts_of("train"))
    return CopyIndex(InMemoryTokens(np.where(learned, ids, -1)), 0, len(ids))
