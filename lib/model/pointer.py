"""A GPT that may also copy: what followed in its own context, next to what its head predicts (Merity et al. 2017).

    a_tj   =  softmax over j < t of  q_t · k_j / √D                 which earlier position t looks at
    c(w)   =  Σ_j a_tj · [the token after j is w]                   what followed there
    p(w)   =  (1 - g) · softmax(head(x_t))_w  +  g · c(w)           g = sigmoid(u · x_t + b)

The head knows words by their rows, which a short text trains little; the pointer needs none, so a name that came up a page
ago is as easy to say again as any. Both parts are distributions, so p sums to 1.

B batch, T time, N ≥ T including the KV cache, C embedding, D head size, V vocabulary
"""

import math

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.errors import UsageError
from lib.model.gpt import GPT
from lib.model.kv_cache import BatchKVCache, KVCache
from lib.model.language_model import in_float16
from lib.model.layers import Linear
from lib.model.loss import SoftTargets
from lib.model.mixture import Copied, linear_mixture_loss, log_mixture, naive_mixture_loss

_START = -3.0  # of the gate's bias: 5% are copied in the beginning


class Pointer(nn.Module):
    """Where each position looks for the token after it, and how much it trusts what it finds there."""

    def __init__(self, emb_dim: int, head_size: int) -> None:
        super().__init__()
        self.W_query = Linear(emb_dim, head_size, bias=False)
        self.W_key = Linear(emb_dim, head_size, bias=False)
        self.gate = nn.Parameter(torch.zeros(emb_dim))
        self.gate_bias = nn.Parameter(torch.full((1,), _START))

    def forward(self, x: Tensor, keys: Tensor, ids: Tensor) -> Copied:
        """x: (B, T, C), of the last T of N positions; keys: (B, N, D) and ids: (B, N), of all -> their copies, (B, T, N)."""
        T, N = x.shape[1], keys.shape[1]
        scores = self.W_query(x) @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])  # (B, T, N)
        places = torch.arange(N, device=x.device)
        has_no_successor = places >= places[N - T :, None]  # (T, N): what follows j is known only where j < t
        scores = scores.masked_fill(has_no_successor, torch.finfo(scores.dtype).min)
        gate = torch.sigmoid((x * self.gate).sum(dim=-1) + self.gate_bias)  # (B, T)
        gate = torch.where(places[N - T :] > 0, gate, 0)
        weights = torch.softmax(scores, dim=-1).masked_fill(has_no_successor, 0) * gate[..., None]
        followers = torch.cat([ids[:, 1:], ids[:, :1]], dim=1)  # the last column is never copied
        return Copied(followers[:, None].expand(-1, T, -1), weights.float(), (1 - gate).float())


class PointerGPT(GPT):
    """`GPT` with a pointer. Its logits are ln p, whose softmax is p."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pointer = Pointer(config.emb_dim, config.head_size)

    @property
    def cached_layers(self) -> int:
        """Those of the blocks, and the pointer, whose keys are kept."""
        return super().cached_layers + 1

    def predict(self, x: Tensor, ids: Tensor, kv_cache: BatchKVCache | None = None, *, last: bool = False) -> Tensor:
        """As `LanguageModel.predict`: features (B, T, C) of `ids` (B, T) -> ln p, (B, T, V), or (B, V) of the last."""
        keys = self.pointer.W_key(x)
        rows = x[:, -1:] if last else x
        if kv_cache is None:
            log_p = log_mixture(self.out_head(rows), self.pointer(rows, keys, ids))
        else:
            texts = enumerate(kv_cache.caches)
            log_p = torch.cat([self._continue(cache, rows[b : b + 1], keys[b : b + 1], ids[b]) for b, cache in texts])
        return log_p[:, -1] if last else log_p

    def _continue(self, cache: KVCache, x: Tensor, keys: Tensor, ids: Tensor) -> Tensor:
        """Ln p of one text's positions x, (1, T, C), whose new keys, (1, N, D), and ids, (N,), continue its cache."""
        all_keys, _ = cache.add(self.config.n_layers, keys, keys)
        all_ids = torch.cat([torch.tensor(cache.ids, dtype=ids.dtype, device=ids.device), ids])
        return log_mixture(self.out_head(x), self.pointer(x, all_keys[:, 0], all_ids[None]))

    def _class_loss(self, x: Tensor, targets: Tensor, soft: SoftTargets | None, copies: int, ids: Tensor | None) -> Tensor:
        """As `LanguageModel._class_loss`, of whole windows. UsageError for parts of them, which have no `ids`."""
        if ids is None:
            raise UsageError("model.kind=pointer learns from running text, not from conversations; use model.kind=gpt")
        windows = x.view(*ids.shape, -1)
        copied = self.pointer(windows, self.pointer.W_key(windows), ids).flatten()
        if self.fused and isinstance(self.out_head, Linear) and not in_float16(x):
            return linear_mixture_loss(x, self.out_head.weight, targets, copied, soft, copies)
        return naive_mixture_loss(self.out_head(x).float(), targets, copied, soft)
