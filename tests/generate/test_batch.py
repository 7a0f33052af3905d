"""Sequences that join and leave a batch at any step get the tokens and the logits that they get alone, to the last bit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.config.schema import GenerateConfig
from lib.errors import MakegptError
from lib.generate import batch
from lib.generate.batch import TokenBatch, TokenSequence
from lib.generate.engine import generate_naive, generate_tokens
from lib.generate.quantize import InferenceModel
from tests.generate.test_engine import BYTES, CPU, DESIGNS, GREEDY, WARM, config_of, random_model

PROMPTS = ["to be", "a", "or not to be, that", "to be", "x" * 40, "whether 'tis nobler"]
#: All that a step of the kernel computes, and what PyTorch computes in its place: windows, pointers, texts without a cache.
KINDS = {name: DESIGNS[name] for name in ("gpt2", "llama", "window", "n-grams", "bigram")} | {"pointer": ["model.kind=pointer"]}


@pytest.fixture(params=[5, batch.PIECE], ids=["pieces of 5 tokens", "whole prompts"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Pieces of prompts of a few tokens, and of so many that each prompt is one."""
    monkeypatch.setattr(batch, "PIECE", request.param)
    return request.param


def alone(model: InferenceModel, prompt: str, config: GenerateConfig) -> tuple[list[int], Tensor]:
    """The new tokens of a text that is alone in its batch, and the logits of each."""
    sequence = TokenSequence(BYTES.encode(prompt), config)
    logits = [logits for _, _, logits in generate_tokens(model, [sequence], CPU)]
    return sequence.tokens, torch.stack(logits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_texts_that_join_and_leave_at_any_step_get_the_bits_that_they_get_alone(kind: str, weights: str, piece: int) -> None:
    model = InferenceModel(random_model(config_of(*KINDS[kind])), weights)
    configs = [replace(WARM, seed=n, max_new_tokens=7 + 6 * n) for n in range(len(PROMPTS))]
    expected = [alone(model, *pair) for pair in zip(PROMPTS, configs, strict=True)]

    sequences = [TokenSequence(BYTES.encode(prompt), config) for prompt, config in zip(PROMPTS, configs, strict=True)]
    logits: dict[TokenSequence, list[Tensor]] = {sequence: [] for sequence in sequences}
    together: TokenBatch[TokenSequence] = TokenBatch(model, CPU)
    joins = {0: [0], 1: [1, 2], 4: [3], 9: [4, 5]}  # step -> who joins
    steps = 0
    while together or steps <= max(joins):
        for n in joins.get(steps, []):
            together.add(sequences[n])
        for sequence, row in together.step():
            sequence.choose_next(row)
            logits[sequence].append(row)
        if steps == 6:
            sequences[1].finish_reason = "cancelled"  # a neighbor leaves
        steps += 1

    for n, (sequence, (tokens, rows)) in enumerate(zip(sequences, expected, strict=True)):
        count = len(sequence.tokens)
        assert count == len(tokens) if n != 1 else 2 < count < len(tokens)
        assert sequence.tokens == tokens[:count]
        if model.no_kernel is None:  # PyTorch's rows depend on each other in the last bits
            assert torch.equal(torch.stack(logits[sequence]), rows[:count])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 5, 6, 11, 23])
def test_a_prompt_read_in_pieces_has_the_tokens_of_the_naive_loop(kind: str, length: int, piece: int) -> None:
    model = InferenceModel(random_model(config_of(*KINDS[kind])))
    prompt = BYTES.encode("whether 'tis nobler in the mind"[:length])
    sequence = TokenSequence(prompt, GREEDY)
    for _ in generate_tokens(model, [sequence], CPU):
        pass
    assert sequence.tokens == list(generate_naive(model, prompt, GREEDY, CPU))


def test_a_long_prompt_holds_the_others_for_one_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PIECE", 4)
    model = InferenceModel(random_model(config_of()))
    short, long = TokenSequence([1, 2], GREEDY), TokenSequence(list(range(18)), GREEDY)
    together: TokenBatch[TokenSequence] = TokenBatch(model, CPU)
    together.add(short)
    together.add(long)
    progress = []
    for _ in range(6):
        for sequence, logits in together.step():
            sequence.choose_next(logits)
        progress.append((len(short.tokens), len(long.tokens)))
    assert progress == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 1)]  # the long one is read from step 2 to step 6


def test_a_step_reads_as_many_short_prompts_as_fit_into_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PIECE", 10)
    model = InferenceModel(random_model(config_of()))
    sequences = [TokenSequence(list(range(n, n + 4)), GREEDY) for n in range(5)]
    together: TokenBatch[TokenSequence] = TokenBatch(model, CPU)
    for sequence in sequences:
        together.add(sequence)
    assert [sequence for sequence, _ in together.step()] == sequences[:2]


def test_samples_of_one_prompt_read_it_once() -> None:
    model = InferenceModel(random_model(config_of()))
    read: list[int] = []
    predict = model.next_token_logits

    def counted(ids: Tensor, *rest: Any) -> Tensor:
        read.append(ids.numel())
        return predict(ids, *rest)

    model.next_token_logits = counted  # type: ignore[method-assign]
    sequences = [TokenSequence(BYTES.encode("to be, or not"), replace(WARM, seed=n, max_new_tokens=3)) for n in range(4)]
    for _ in generate_tokens(model, sequences, CPU):
        pass
    assert read == [13, 4, 4]


def test_ids_that_the_model_does_not_know_do_not_join() -> None:
    together: TokenBatch[TokenSequence] = TokenBatch(random_model(config_of()), CPU)
    with pytest.raises(MakegptError, match="the id 256 is not in the model's vocabulary"):
        together.add(TokenSequence([1, 256], GREEDY))
    assert len(together) == 0
    assert together.step() == []
