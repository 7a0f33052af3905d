"""Sparse attention: each pattern is a mask, and skipping what it hides changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib.errors import UsageError
from lib.model.attention import MultiHeadAttention
from lib.model.causal_attention import attention_weights, causal_mask
from lib.model.sparse_attention import SparsePattern, sparse_attention
from tests.model.test_formulas import config_of, ids, small_model
from tests.model.test_ladder import fill, numbers

PATTERNS = [
    *(SparsePattern("sliding", w) for w in (1, 3, 8, 40)),
    *(SparsePattern("strided", w) for w in (1, 3, 8, 40)),
    *(SparsePattern("fixed", w, c) for w, c in ((1, 1), (3, 1), (8, 2), (8, 8), (40, 1))),
]
DENSE = [SparsePattern("sliding", 30), SparsePattern("strided", 30), SparsePattern("strided", 1), SparsePattern("fixed", 5, 5)]


def drawn(pattern: SparsePattern, length: int) -> str:
    """The rows of a mask, x where a token is seen."""
    return " ".join("".join(".x"[seen] for seen in row) for row in (~pattern.mask(length)).int().tolist())


def draw_qkv(length: int, requires_grad: bool = False) -> list[Tensor]:
    return [numbers(2, 3, length, 4, seed=seed).requires_grad_(requires_grad) for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [
        (SparsePattern("sliding", 2), "x.... xx... .xx.. ..xx. ...xx"),
        (SparsePattern("strided", 2), "x.... xx... xxx.. .xxx. x.xxx"),
        (SparsePattern("fixed", 2), "x.... xx... .xx.. .xxx. .x.xx"),
        (SparsePattern("fixed", 3, 2), "x.... xx... xxx.. .xxx. .xxxx"),
    ],
    ids=str,
)
def test_a_mask_is_that_of_the_paper(pattern: SparsePattern, mask: str) -> None:
    assert drawn(pattern, 5) == mask


@pytest.mark.parametrize("pattern", DENSE, ids=str)
def test_a_pattern_that_covers_all_is_dense_attention(pattern: SparsePattern) -> None:
    q, k, v = draw_qkv(30)
    assert torch.equal(pattern.mask(30), causal_mask(30))
    dense = attention_weights(q, k, causal_mask(30)) @ v
    torch.testing.assert_close(sparse_attention(q, k, v, pattern), dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [1, 7, 24, 41])
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_skipping_what_is_hidden_changes_neither_result_nor_gradients(pattern: SparsePattern, length: int) -> None:
    masked, sparse = draw_qkv(length, requires_grad=True), draw_qkv(length, requires_grad=True)
    results = [
        attention_weights(masked[0], masked[1], pattern.mask(length)) @ masked[2],
        sparse_attention(*sparse, pattern),
    ]
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)
    for result in results:
        (result * numbers(*result.shape, seed=9)).sum().backward()  # type: ignore[no-untyped-call]
    for slow, fast in zip(masked, sparse, strict=True):
        torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_last_query_alone_gets_the_same_context_vector(pattern: SparsePattern) -> None:
    q, k, v = draw_qkv(23)
    last = sparse_attention(q[:, :, -1:], k, v, pattern)
    torch.testing.assert_close(last, sparse_attention(q, k, v, pattern)[:, :, -1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_seen_positions_are_those_that_the_mask_leaves(pattern: SparsePattern) -> None:
    mask = pattern.mask(23)
    for t in range(23):
        assert pattern.seen(t).tolist() == (~mask[t]).nonzero()[:, 0].tolist()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_hidden_token_has_no_effect_and_a_seen_one_has(pattern: SparsePattern) -> None:
    q, k, v = draw_qkv(30)
    before = sparse_attention(q, k, v, pattern)
    for s in range(30):
        changed_k, changed_v = k.clone(), v.clone()
        changed_k[:, :, s] += 1
        changed_v[:, :, s] += 1
        changed = (sparse_attention(q, changed_k, changed_v, pattern) != before).any(dim=-1).all(dim=(0, 1))
        assert torch.equal(changed, ~pattern.mask(30)[:, s])


class LargestTensor(TorchDispatchMode):
    """The numbers of the largest tensor that an operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


@pytest.mark.parametrize("pattern", [SparsePattern(name, 8) for name in ("sliding", "strided", "fixed")], ids=str)
def test_a_long_text_is_read_without_a_score_for_each_pair(pattern: SparsePattern) -> None:
    length = 512
    attention = MultiHeadAttention(8, 2, length, pattern=pattern, fused=True)
    fill(attention)
    with torch.no_grad(), LargestTensor() as largest:
        attention(numbers(1, length, 8))
    assert pattern.saves_time(length, length)
    assert largest.numel <= 2 * length * pattern.computed(length) < 2 * length * length / 4


def test_dropout_zeroes_weights_near_and_far() -> None:
    torch.manual_seed(1)
    pattern = SparsePattern("strided", 8)
    attention = MultiHeadAttention(8, 2, 256, pattern=pattern, fused=True, drop_rate=0.5).train()
    _, _, v = draw_qkv(256)
    mean = sum(sparse_attention(v, v, torch.ones_like(v), pattern, attention.dropout) for _ in range(100)) / 100
    assert isinstance(mean, Tensor)
    assert (mean - 1).abs().mean() < 0.2  # weights that are kept are doubled: the mean stays 1
    once = sparse_attention(v, v, torch.ones_like(v), pattern, attention.dropout)
    assert (once != 1).float().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_pattern": "strided"},
            "model.attention_pattern=strided needs model.window.*; the square root of .*, 6, leaves",
        ),
        ({"window": 4, "summary_tokens": 2}, "model.summary_tokens=2 has no effect with model.attention_pattern=sliding"),
        (
            {"window": 4, "attention_pattern": "fixed", "summary_tokens": 5},
            "model.summary_tokens=5 must be at most model.window=4",
        ),
    ],
)
def test_numbers_that_do_not_go_with_a_pattern_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config_of("debug", **changes)


def test_a_text_shorter_than_the_context_is_read_as_its_beginning() -> None:
    for changes in ({"window": 2}, {"window": 2, "attention_pattern": "strided"}, {"window": 2, "attention_pattern": "fixed"}):
        model = small_model(**changes)
        torch.testing.assert_close(model(ids()[:, :13]), model(ids())[:, :13], rtol=1e-5, atol=1e-5)
