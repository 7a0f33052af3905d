"""Speculative decoding: whatever a draft proposes, the text is the model's own."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.config.params import load_params, resolve_config
from lib.config.schema import GenerateConfig
from lib.errors import MakegptError
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.quantize import InferenceModel
from lib.generate.speculative import Speculation, generate_speculatively
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from tests.conftest import Here

CPU = torch.device("cpu")
V = 5


def random_model(seed: int, *changes: str, sharpness: float = 1.0) -> LanguageModel:
    """A small model whose logits are `sharpness` times those of an untrained one, so that its distribution is not flat."""
    changes = (f"model.vocab_size={V}", "model.emb_dim=16", *changes)
    model = build_model(resolve_config(load_params(), "debug", changes).model)
    model.initialize(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.out_head.weight.mul_(sharpness)
    return model.eval()


def settings(**values: Any) -> GenerateConfig:
    return replace(resolve_config(load_params(), "debug").generate, **{"top_k": None, "temperature": 1.0} | values)


def speculated(model: LanguageModel, draft: LanguageModel, config: GenerateConfig, ahead: int = 4, **sequence: Any) -> Any:
    text, counted = TokenSequence([0, 1], config, **sequence), Speculation()
    logits: list[Tensor] = [row for _, _, row in generate_speculatively(model, draft, text, CPU, ahead=ahead, counted=counted)]
    return text, counted, logits


def plain(model: LanguageModel, config: GenerateConfig, **sequence: Any) -> TokenSequence:
    text = TokenSequence([0, 1], config, **sequence)
    for _ in generate_tokens(model, [text], CPU):
        pass
    return text


DESIGNS: list[tuple[str, ...]] = [
    (),
    ("model.positions=rotary", "model.norm=rms", "model.feed_forward=swiglu", "model.n_kv_heads=1"),
    ("model.window=3",),
    ("model.kind=pointer",),
]


@pytest.mark.parametrize("changes", DESIGNS, ids=lambda changes: " ".join(changes) or "gpt")
@pytest.mark.parametrize("ahead", [1, 4, 40])
def test_greedy_tokens_are_those_without_a_draft(changes: tuple[str, ...], ahead: int) -> None:
    model, draft = random_model(1, *changes, sharpness=8), random_model(2, sharpness=8)
    config = settings(temperature=0, max_new_tokens=60)  # beyond the context of 32
    text, counted, logits = speculated(model, draft, config, ahead)
    assert text.tokens == plain(model, config).tokens
    assert text.finish_reason == "length"
    assert len(logits) == 60
    assert counted.proposed >= counted.accepted >= 0


def test_a_draft_that_is_the_model_itself_is_always_right() -> None:
    model = InferenceModel(random_model(1, sharpness=8))
    config = settings(temperature=0, max_new_tokens=30)
    text, counted, _ = speculated(model, model, config)
    assert counted == Speculation(proposed=24, accepted=24)  # five tokens a pass
    assert text.tokens == plain(model, config).tokens


@pytest.mark.parametrize(
    "filters", [{}, {"top_k": 3}, {"top_p": 0.7}, {"temperature": 0.7, "repetition_penalty": 1.5}], ids=str
)
def test_texts_are_distributed_as_the_model_says(filters: dict[str, Any]) -> None:
    """4,000 texts of three tokens: each one's frequency is its probability, within five standard errors."""
    model, draft, count = random_model(1, sharpness=4), random_model(2, sharpness=4), 4_000
    found: Counter[tuple[int, ...]] = Counter()
    for seed in range(count):
        text, _, _ = speculated(model, draft, settings(seed=seed, max_new_tokens=3, **filters), ahead=2)
        found[tuple(text.tokens)] += 1
    sampler = TokenSequence([0], settings(**filters)).sampler

    def probabilities(ids: list[int], length: int) -> dict[tuple[int, ...], float]:
        if not length:
            return {(): 1.0}
        with torch.inference_mode():
            p = sampler.distribution(model(torch.tensor([ids]))[0, -1], ids)
        return {
            (token, *rest): p[token].item() * value
            for token in range(V)
            if p[token]
            for rest, value in probabilities([*ids, token], length - 1).items()
        }

    expected = probabilities([0, 1], 3)
    assert sum(expected.values()) == pytest.approx(1)
    assert set(found) <= set(expected)
    for tokens, p in expected.items():
        assert abs(found[tokens] / count - p) <= 5 * (p * (1 - p) / count) ** 0.5 + 1e-9, tokens


def test_a_text_ends_at_its_end_although_more_was_accepted() -> None:
    model = random_model(1, sharpness=8)
    config = settings(temperature=0, max_new_tokens=30)
    whole = plain(model, config).tokens
    end = whole[7]
    text, _, _ = speculated(model, model, config, ends=[end])
    assert text.tokens == whole[: whole.index(end)]
    assert text.finish_reason == "end_of_text"


def test_a_model_without_a_kv_cache_is_refused() -> None:
    bigram = build_model(resolve_config(load_params(), "bigram", [f"model.vocab_size={V}"]).model)
    with pytest.raises(MakegptError, match="a bigram has none"):
        speculated(random_model(1), bigram, settings())


def test_the_command_writes_what_it_writes_without_a_draft(small: Path, here: Here) -> None:
    words = ("generate", small / "run", "the", "--temperature", 0, "--max-new-tokens", 20, "--json")
    alone, guided = here(*words), here(*words, "--draft", small / "run", "--ahead", 3)
    assert "proposed tokens were accepted" in guided.err
    assert [part.split('"logprobs"')[0] for part in (alone.out, guided.out)] == [alone.out.split('"logprobs"')[0]] * 2
    assert "leave --no-cache" in here(*words, "--draft", small / "run", "--no-cache", code=2).err
