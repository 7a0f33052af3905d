"""What a window says of its own next tokens: a cache of its tokens, pairs and triples (Kuhn and De Mori 1990).

    q(w)  =  (1 - λ₁ - λ₂ - λ₃) · q_counts(w) + λ₁ · c₁(w) + λ₂ · c₂(w) + λ₃ · c₃(w)

c₁ are the frequencies of the tokens so far, c₂ those of what followed the current token before, c₃ those of what followed it
and the token before it. A writer who used a word once uses it again, which counts of the other parts of a text do not
know. The weights grow with what there is to go by: λ₁ with the number of tokens, λ₂ and λ₃ with how often the pair's first
token and the triple's first two came up.

B windows, T tokens, V vocabulary
"""

import torch
from torch import Tensor

#: The largest λ₁, λ₂ and λ₃. EXPERIMENTS.md says what they were chosen on.
TOKEN, PAIR, TRIPLE = 0.03, 0.04, 0.2

_HALF = 60  # tokens after which λ₁ has half its size


def add_window_cache(rows: Tensor, ids: Tensor) -> None:
    """Mix the distributions `rows`, (B · T, V), of the tokens after each of the `ids`, (B, T), with those of the cache."""
    B, T = ids.shape
    rows = rows.view(B, T, -1)
    tokens = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]  # (T, T): c₁, as weights of the positions so far
    seen = torch.arange(1, T + 1)
    token_weight = TOKEN * seen / (seen + _HALF)
    pairs = (ids[:, :, None] == ids[:, None, :]) & torch.ones(T, T, dtype=torch.bool).tril(-1)  # (B, T, T), earlier and equal
    before = torch.full_like(ids, -1)
    before[:, 1:] = ids[:, :-1]
    triples = pairs & (before[:, :, None] == before[:, None, :])
    following, weight = torch.zeros(B, T, T), token_weight.repeat(B, 1)
    for matches, share in ((pairs, PAIR), (triples, TRIPLE)):
        count = matches.sum(dim=-1, keepdim=True)
        following += share / (count + 1) * matches  # share · n/(n + 1), divided among n matches
        weight += share * (count / (count + 1))[..., 0]
    rows *= (1 - weight)[..., None]
    rows.scatter_add_(2, ids[:, None].expand(B, T, T), (token_weight[:, None] * tokens).expand(B, T, T))
    rows.scatter_add_(2, ids.roll(-1, dims=1)[:, None].expand(B, T, T), following)
