"""The sliders of the page and its draws: the filters of lib/generate/sampling.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.generate.sampling import apply_repetition_penalty, keep_min_p, keep_top_k, keep_top_p, temperature_scaled
from tests.page.node import needs_node, run_in_node

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1e-6},
    {"temperature": 2.5, "top_k": 1},
    {"temperature": 0.8, "top_k": 20},
    {"temperature": 1.0, "top_k": 5000},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_p": 1e-9},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.0, "min_p": 1.0},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "repetition_penalty": 1.3},
]
CODE = """
return data.all.map(({logits, settings, seen}) => {
  const {own, final, removed} = sampling_module.distribution(Float32Array.from(logits), settings, seen);
  return {own: [...own], final: [...final], removed};
});
"""


def filtered(logits: torch.Tensor, seen: list[int], settings: dict[str, Any]) -> torch.Tensor:
    """The probabilities that `sample_token` draws from."""
    if (penalty := settings.get("repetition_penalty", 1.0)) != 1.0:
        logits = apply_repetition_penalty(logits, seen, penalty)
    logits = temperature_scaled(logits, settings["temperature"])
    for name, keep in {"top_k": keep_top_k, "top_p": keep_top_p, "min_p": keep_min_p}.items():
        if name in settings:
            logits = keep(logits, settings[name])
    return torch.softmax(logits, dim=-1)


@needs_node
def test_every_filter_leaves_what_ours_leaves(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(size, generator=generator) * spread for size in (2, 65, 3000) for spread in (0.5, 4.0)]
    seen = [0, 1, 1]
    cases = [(row, settings) for row in logits for settings in SETTINGS]
    found = run_in_node(
        CODE, tmp_path, "sampling", all=[{"logits": row.tolist(), "settings": s, "seen": seen} for row, s in cases]
    )
    for (row, settings), theirs in zip(cases, found, strict=True):
        ours = filtered(row, seen, settings).numpy()
        np.testing.assert_allclose(theirs["final"], ours, atol=1e-12, err_msg=str(settings))
        np.testing.assert_allclose(theirs["own"], torch.softmax(row.double(), dim=-1).numpy(), atol=1e-12)
        names = {name for name in theirs["removed"] if name}
        assert names <= settings.keys()
        underflow = 0 if settings["temperature"] == 1e-6 else None  # what is left may have no probability there
        if underflow is None:
            assert [name is not None for name in theirs["removed"]] == (ours == 0).tolist()


@needs_node
def test_of_equal_tokens_those_with_lower_ids_stay(tmp_path: Path) -> None:
    case = {"logits": [1.0, 2.0, 2.0, 2.0, 0.0], "settings": {"temperature": 1.0, "top_k": 2}, "seen": []}
    (found,) = run_in_node(CODE, tmp_path, "sampling", all=[case])
    assert found["removed"] == ["top_k", None, None, "top_k", "top_k"]
    assert found["final"] == [0, 0.5, 0.5, 0, 0]


@needs_node
def test_at_temperature_0_the_most_likely_token_is_left(tmp_path: Path) -> None:
    case = {"logits": [1.0, 3.0, 2.0, 3.0], "settings": {"temperature": 0, "top_k": 3}, "seen": []}
    (found,) = run_in_node(CODE, tmp_path, "sampling", all=[case])
    assert found["removed"] == ["greedy", None, "greedy", "greedy"]
    assert found["final"] == [0, 1, 0, 0]


def xoshiro128starstar(state: list[int]) -> int:
    """The next number of the generator, as its authors define it (Blackman and Vigna 2021, in C)."""
    mask = 2**32 - 1
    left = lambda x, bits: ((x << bits) | (x >> (32 - bits))) & mask  # noqa: E731
    result = (left(state[1] * 5 & mask, 7) * 9) & mask
    shifted = (state[1] << 9) & mask
    state[2] ^= state[0]
    state[3] ^= state[1]
    state[1] ^= state[2]
    state[0] ^= state[3]
    state[2] ^= shifted
    state[3] = left(state[3], 11)
    return result


def mixed(seed: int) -> list[int]:
    """The state that a seed begins with: four numbers of a counter, each mixed as at the end of MurmurHash3."""
    state, mask = [], 2**32 - 1
    for n in range(1, 5):
        z = (seed + n * 0x9E3779B9) & mask
        z = (z ^ z >> 16) * 0x85EBCA6B & mask
        z = (z ^ z >> 13) * 0xC2B2AE35 & mask
        state.append(z ^ z >> 16)
    return state


@needs_node
@pytest.mark.parametrize("seed", [0, 1, 123, 2**31, 2**32 - 1])
def test_the_random_numbers_are_those_of_xoshiro128(tmp_path: Path, seed: int) -> None:
    code = "const next = sampling_module.randomNumbers(data.seed); return Array.from({length: 1000}, next);"
    found = run_in_node(code, tmp_path, "sampling", seed=seed)
    state = mixed(seed)
    numbers = [xoshiro128starstar(state) for _ in range(2000)]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    assert found == [((first >> 5) * 2**26 + (second >> 6)) / 2**53 for first, second in pairs]
    assert abs(sum(found) / 1000 - 0.5) < 0.05


@needs_node
def test_tokens_are_drawn_as_often_as_their_probability_says(tmp_path: Path) -> None:
    probabilities = [0.0, 0.5, 0.0, 0.2, 0.3, 0.0]
    code = """
    const next = sampling_module.randomNumbers(7), counts = data.p.map(() => 0);
    for (let n = 0; n < 20000; n++) counts[sampling_module.drawToken(data.p, next())]++;
    return {counts, end: sampling_module.drawToken(data.p, 1 - 2 ** -53)};
    """
    found = run_in_node(code, tmp_path, "sampling", p=probabilities)
    np.testing.assert_allclose(np.array(found["counts"]) / 20000, probabilities, atol=0.015)
    assert found["end"] == 4
