"""Solutions that the models have as methods are those methods, by test."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lib.chat.messages import Message
from lib.chat.template import ChatML
from lib.config.params import load_params, resolve_config
from lib.data.shards import InMemoryTokens
from lib.exercises import solutions
from lib.exercises.numbers import random_ids, random_numbers
from lib.model.attention import MultiHeadAttention
from lib.model.block import TransformerBlock
from lib.model.cross_attention import CrossAttention
from lib.model.embeddings import EmbeddingModel
from lib.model.feed_forward import FeedForward, SwiGLU
from lib.model.layers import Linear, SharedRowHead
from lib.model.lora import AdaptedLinear, Adapter
from lib.model.loss import SoftTargets, cross_entropy, naive_cross_entropy
from lib.model.mixture import Copied, log_mixture
from lib.model.packing import Packing
from lib.model.positions import Rotary, angles
from lib.model.registry import build_model, count_parameters
from lib.model.self_attention import BareSelfAttention
from lib.model.sparse_attention import SparsePattern
from lib.ngrams.counts import NGrams
from lib.ngrams.kneser_ney import KneserNey
from lib.train.dpo import PairLogProbs, dpo_loss
from tests.model.test_formulas import config_of


def randomize(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for number, weight in enumerate(module.parameters()):
            weight.copy_(0.5 * random_numbers(*weight.shape, seed=number))


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def gradients(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    inputs = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    return torch.autograd.grad(function(*inputs), inputs)


def test_backpropagation_is_that_of_autograd() -> None:
    x, W, dy = random_numbers(5, 3), random_numbers(2, 3), random_numbers(5, 2)
    for ours, theirs in zip(
        solutions.linear_backward(x, W, dy), gradients(lambda x, W: (x @ W.T * dy).sum(), x, W), strict=True
    ):
        same(ours, theirs)


def test_a_tied_gradient_is_that_of_autograd() -> None:
    ids, dx, features, dlogits = random_ids(4, 6), random_numbers(4, 3), random_numbers(4, 3, seed=2), random_numbers(4, 6)
    (theirs,) = gradients(lambda E: (E[ids] * dx).sum() + (features @ E.T * dlogits).sum(), random_numbers(6, 3))
    same(solutions.tied_gradient(ids, dx, features, dlogits, 6), theirs)


def test_embedding_is_the_models_and_a_matrix_product() -> None:
    model = EmbeddingModel(config_of("single_head", vocab_size=9))
    randomize(model)
    ids = random_ids(12, 9).view(2, 6)
    with torch.no_grad():
        same(solutions.embed(ids, model.tok_emb.weight, model.pos_emb.weight), model.embed(ids))
        same(solutions.one_hot(ids[0], 9) @ model.tok_emb.weight, model.tok_emb(ids[0]))


def test_self_attention_is_the_models() -> None:
    bare = BareSelfAttention(emb_dim=4, head_size=3)
    randomize(bare)
    x = random_numbers(5, 4)
    with torch.no_grad():
        same(solutions.self_attention(x, bare.W_query, bare.W_key, bare.W_value), bare(x))


def test_the_mask_of_a_window_is_that_of_the_sliding_pattern() -> None:
    assert torch.equal(solutions.window_mask(9, 4), SparsePattern("sliding", 4).mask(9))


def test_heads_that_are_split_and_joined_are_as_before() -> None:
    x = random_numbers(2, 5, 6)
    assert torch.equal(solutions.merge_heads(solutions.split_heads(x, 3)), x)


def test_feed_forward_and_swiglu_are_the_models() -> None:
    x, plain, gated = random_numbers(2, 3, 4), FeedForward(4), SwiGLU(4)
    randomize(plain)
    randomize(gated)
    with torch.no_grad():
        weights = (plain.expand.weight, plain.expand.bias, plain.contract.weight, plain.contract.bias)
        same(solutions.feed_forward(x, *weights), plain(x))
        same(solutions.swiglu(x, gated.gate.weight, gated.expand.weight, gated.contract.weight), gated(x))


def test_the_block_is_the_models() -> None:
    block = TransformerBlock(config_of("decoder", emb_dim=8, n_heads=2, context_length=4)).eval()
    randomize(block)
    x = random_numbers(1, 4, 8)
    with torch.no_grad():
        same(solutions.pre_norm_block(x, block.attention, block.feed_forward, block.norm1, block.norm2), block(x))


def test_parameters_are_counted_as_in_the_model() -> None:
    for name in ("decoder", "gpt_balanced", "gpt2_medium"):
        c = resolve_config(load_params(), name, ["model.vocab_size=500"]).model
        count = solutions.parameter_count(500, c.context_length, c.emb_dim, c.n_layers, c.tie_weights, c.qkv_bias)
        assert count == count_parameters(build_model(c, "meta"))


def test_cached_attention_is_the_last_row_of_attention() -> None:
    q, k, v = random_numbers(3, 2, 5, 4)
    last = solutions.cached_attention(q[:, -1:], k[:, -1:], v[:, -1:], k[:, :-1], v[:, :-1])
    same(last[0], F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, -1:])
    assert torch.equal(last[1], k)
    assert torch.equal(last[2], v)


def test_kneser_ney_of_the_exercise_is_that_of_the_baselines() -> None:
    ids = ["abcdr!".index(letter) for letter in "abracadabra!"]
    tokens = InMemoryTokens(np.array(ids * 2)[: len(ids) + 5])
    rows = KneserNey(NGrams(tokens, [(0, len(ids))], order=2, vocab_size=6)).rows(tokens, np.arange(1, len(ids)))
    ours = solutions.kneser_ney_bigram(ids, 6)
    np.testing.assert_allclose(ours[ids[:-1]].numpy(), rows, atol=1e-6)
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(6, dtype=torch.float64))


def test_rotation_and_shared_heads_are_the_models() -> None:
    x, theta = random_numbers(2, 4, 5, 6), angles(5, 6)
    same(solutions.rotate(x, theta.cos(), theta.sin()), Rotary(5, 6)(x))
    attention = MultiHeadAttention(emb_dim=8, n_heads=4, context_length=5, n_kv_heads=2)
    kv = random_numbers(1, 2, 5, 2)
    assert torch.equal(solutions.share_heads(kv, 4), attention._shared(kv))


def test_scores_of_normalized_queries_and_keys_are_the_models() -> None:
    attention = MultiHeadAttention(emb_dim=4, n_heads=1, context_length=5, qk_norm=True)
    randomize(attention)
    x = random_numbers(1, 5, 4)
    with torch.no_grad():
        normed_q, normed_k, _ = attention.queries_keys_values(x)
        q, k, _ = attention.W_qkv(x)[0].chunk(3, dim=-1)
        ours = solutions.normalized_scores(q, k, attention.q_norm.scale, attention.k_norm.scale, 1e-5)
        same(ours, (normed_q @ normed_k.transpose(-1, -2))[0, 0] / 2)


def test_soft_targets_and_shared_rows_are_the_models() -> None:
    logits, targets, q = random_numbers(3, 5), random_ids(3, 5), torch.softmax(random_numbers(3, 5, seed=2), -1)
    same(solutions.soft_cross_entropy(logits, targets, q, 0.9), naive_cross_entropy(logits, targets, SoftTargets(q, 0.9)) / 3)
    head, x = SharedRowHead(4, 3, copies=7), random_numbers(4)
    randomize(head)
    with torch.no_grad():
        rows = head.weight @ x
        same(solutions.shared_row_softmax(rows[:2], rows[2], 7), torch.softmax(head(x), -1))


def test_a_head_of_frequencies_predicts_them() -> None:
    p = torch.softmax(random_numbers(5), dim=-1)
    same(torch.softmax(solutions.frequency_head(p, 4) @ (F.layer_norm(random_numbers(4), (4,)) + 1), -1), p)


def test_the_chat_template_is_chatml() -> None:
    messages = [{"role": "user", "content": "é <|im_end|>"}, {"role": "assistant", "content": ""}]
    for answer in (False, True):
        theirs = ChatML().text([Message(**message) for message in messages], answer=answer)
        assert solutions.chatml_text(messages, answer) == theirs


def test_the_mask_of_packed_texts_is_the_models() -> None:
    texts = torch.tensor([0, 0, 1, 1, 1, 2])
    causal = torch.ones(6, 6, dtype=torch.bool).triu(diagonal=1)
    assert torch.equal(solutions.packed_mask(texts), Packing(texts[None]).others[0, 0] | causal)


def test_a_merged_adapter_is_the_models() -> None:
    linear, adapter = Linear(3, 4, bias=False), Adapter(3, 4, rank=2, alpha=8.0)
    randomize(linear)
    randomize(adapter)
    merged = AdaptedLinear(linear, {"out": 4}, {"out": adapter}).weight
    same(solutions.merged_weight(linear.weight, adapter.A, adapter.B, 8.0), merged)


def test_the_loss_of_preferences_and_its_gradient_are_those_of_training() -> None:
    pairs = random_numbers(4, 5)
    pairs[:, 0] = 0.0  # a margin of 0

    def theirs(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return dpo_loss(PairLogProbs(a, b), PairLogProbs(c, d), 0.5).sum()

    def ours(*four: Tensor) -> Tensor:
        return solutions.preference_loss(*four, 0.5).sum()

    same(ours(*pairs), theirs(*pairs))
    for mine, other in zip(gradients(ours, *pairs), gradients(theirs, *pairs), strict=True):
        same(mine, other)


def test_the_pointers_mixture_is_that_of_the_model() -> None:
    head, weights = random_numbers(7), torch.softmax(random_numbers(4, seed=2), dim=0)
    followers = torch.tensor([3, 0, 3, 6])
    copied = Copied(followers[None], 0.3 * weights[None], torch.tensor([0.7]))
    expected = log_mixture(head[None], copied)[0].exp()
    result = solutions.pointer_mixture(torch.softmax(head, dim=0), random_numbers(4, seed=2), followers, 0.3)
    torch.testing.assert_close(result, expected)


def test_cross_attention_is_the_models() -> None:
    attention = CrossAttention(config_of("reverse_text", emb_dim=8, n_heads=2, out_bias=False)).eval()
    randomize(attention)
    x, encoded = random_numbers(2, 3, 8), random_numbers(2, 5, 8, seed=2)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.no_grad():
        weights = (attention.W_query.weight, attention.W_kv.weight, attention.out_proj.weight)
        expected = attention(x, [attention.read_source(encoded, padding[:, None, None])])
        same(solutions.cross_attention(x, encoded, padding, *weights, 2), expected)


def test_smoothed_targets_have_the_loss_of_training() -> None:
    logits, targets = random_numbers(4, 7), random_ids(4, 7)
    smooth = build_model(config_of("decoder", vocab_size=7)).smooth(4, 0.1)
    ours = -(solutions.smoothed_targets(targets, 7, 0.1) * torch.log_softmax(logits, dim=-1)).sum()
    same(ours, cross_entropy(logits, targets, smooth))
