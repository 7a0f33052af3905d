"""GPT: token and position embeddings, a stack of blocks, a final norm, an output head (Radford et al. 2019).

B batch, T time, C embedding, V vocabulary
"""

import math

import torch
from torch import Tensor, nn

from lib.config import ModelConfig
from lib.errors import MakegptError
from lib.model.block import TransformerBlock
from lib.model.layers import Embedding, LayerNorm, Linear


class GPT(nn.Module):
    """A decoder-only transformer: for every position, scores for the token that comes next."""

    def __init__(self, config: ModelConfig) -> None:
        """`config.vocab_size` must be known. Weights are undefined until `initialise` or a checkpoint fills them."""
        super().__init__()
        assert config.vocab_size is not None
        self.vocab_size: int = config.vocab_size
        self.context_length = config.context_length
        self.tok_emb = Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = Embedding(config.context_length, config.emb_dim)
        self.dropout = nn.Dropout(config.drop_rate)
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.emb_dim, config.layers == "fused")
        self.out_head = Linear(config.emb_dim, config.vocab_size, bias=False)
        if config.tie_weights:
            self.out_head.weight = self.tok_emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (B, T), T at most the context length -> logits (B, T, V)."""
        return self.out_head(self.features(ids))

    def next_token_logits(self, ids: Tensor) -> Tensor:
        """ids: (B, T) -> logits (B, V) for the token after the last one; the head works on that row only."""
        return self.out_head(self.features(ids)[:, -1])

    def features(self, ids: Tensor) -> Tensor:
        """ids: (B, T) -> what the head reads, (B, T, C)."""
        T = ids.shape[1]
        if self.context_length < T:
            raise MakegptError(f"{T} tokens are more than the model's context of {self.context_length}; give fewer")
        positions = torch.arange(T, device=ids.device)
        x = self.dropout(self.tok_emb(ids) + self.pos_emb(positions))  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw the first weights: all from normal distributions, biases 0, norms the identity.

        Matrices have a standard deviation of 0.02 (GPT-2's, near 1/√C for its widths: a product keeps the
        size of its input). The two that end in a shortcut are smaller by √(2·layers), since 2·layers
        of them are added up (Radford et al. 2019, section 2.3). The head, tied or not, starts with logits of
        standard deviation `START_LOGITS` whatever the width, so that the first loss is near ln V.
        """
        n_shortcuts = 2 * len(self.blocks)
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue  # biases and norms are made as they should start
            std = 0.02
            if name.endswith(("out_proj.weight", "contract.weight")):
                std /= math.sqrt(n_shortcuts)
            elif weight is self.out_head.weight:
                std = START_LOGITS / math.sqrt(weight.shape[1])
            weight.normal_(0.0, std, generator=generator)

    def is_table(self, name: str) -> bool:
        """Whether the parameter `name` has a row for each token or position: the embeddings and the head."""
        return name.startswith(("tok_emb.", "pos_emb.", "out_head."))

    def decayed(self, name: str) -> bool:
        """Whether weight decay acts on the parameter `name`: on matrices and embeddings, not on biases and norms."""
        return self.get_parameter(name).dim() >= 2


#: The head's logits at the start: E[loss] = ln V + σ²/2 for normal logits, here 0.045 above ln V.
START_LOGITS = 0.3
