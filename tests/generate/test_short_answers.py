"""Short answers as one batch: those that the plain loop gives, whatever else is in the batch."""

from dataclasses import replace

import pytest
import torch

from lib.config.params import load_params, resolve_config
from lib.generate.engine import generate_naive
from lib.generate.short_answers import choose, short_answers
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from tests.conftest import PROJECT

CPU = torch.device("cpu")
CONFIG = resolve_config(load_params(PROJECT / "params.yaml"), "debug")
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9]]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    model = build_model(replace(CONFIG.model, vocab_size=20))
    model.initialize(torch.Generator().manual_seed(1))
    return model.train()


def test_the_most_likely_answers_are_those_of_the_plain_loop(model: LanguageModel) -> None:
    greedy = replace(CONFIG.generate, max_new_tokens=8, temperature=0.0)
    model.eval()
    expected = [list(generate_naive(model, prompt, greedy, CPU)) for prompt in PROMPTS]
    model.train()
    assert short_answers(model, PROMPTS, 8, -1, CPU) == expected
    end = expected[0][2]
    cut = [answer[: answer.index(end) + 1] if end in answer else answer for answer in expected]
    assert short_answers(model, PROMPTS, 8, end, CPU) == cut
    assert model.training


def test_an_answer_depends_on_its_draws_alone(model: LanguageModel) -> None:
    draws = torch.rand(3, 8, generator=torch.Generator().manual_seed(2))
    together = short_answers(model, PROMPTS, 8, 0, CPU, draws)
    alone = [short_answers(model, [PROMPTS[row]], 8, 0, CPU, draws[row : row + 1])[0] for row in range(3)]
    assert together == alone


def test_a_draw_chooses_a_token_by_its_part_of_the_interval() -> None:
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3)
    assert choose(logits, torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 1.0])).tolist() == [0, 0, 1, 1, 2, 2]
