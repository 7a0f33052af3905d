"""A recurrent model: it reads token by token and carries what it remembers to the next, in a vector of fixed size.

The long short-term memory (Hochreiter and Schmidhuber 1997; with a forget gate, Gers et al. 2000) was the usual language model
before attention. Its memory c changes by what gates let in and let go, so a gradient survives where a plain recurrent network
multiplies it by a matrix at every step.

B batch, T time, C embedding and hidden size, V vocabulary
"""

import torch
from torch import Tensor, nn

from lib.config.model import ModelConfig
from lib.model.dropout import Dropout
from lib.model.kv_cache import BatchKVCache
from lib.model.language_model import LanguageModel
from lib.model.layers import Embedding, Linear
from lib.model.packing import Packing


class LSTMLayer(nn.Module):
    """One layer over a whole text: at each step four gates decide what is forgotten, written and shown.

        f, i, o  =  sigmoid(W x + U h + b)      forget, input and output gate
        g        =  tanh(W x + U h + b)         what may be written
        c        ←  f · c + i · g
        h        ←  o · tanh(c)

    The four stand side by side in one product, in PyTorch's order: i, f, g, o.
    """

    def __init__(self, size_in: int, size: int, *, fused: bool = False) -> None:
        super().__init__()
        self.size = size
        self.fused = fused
        self.W_input = Linear(size_in, 4 * size)
        self.W_hidden = Linear(size, 4 * size, bias=False)

    def forward(self, x: Tensor, begins: Tensor | None = None) -> Tensor:
        """x: (B, T, C) -> h of each step, (B, T, C). `begins`: (B, T), true where a text begins, with nothing remembered."""
        h = c = x.new_zeros(len(x), self.size)
        if self.fused and begins is None:
            bias = self.W_input.bias
            assert bias is not None
            weights = [self.W_input.weight, self.W_hidden.weight, bias, torch.zeros_like(bias)]  # PyTorch has a second bias
            return torch.lstm(x, [h[None], c[None]], weights, True, 1, 0.0, self.training, False, True)[0]
        outputs = []
        keeps = None if begins is None else (~begins)[..., None].to(x.dtype)
        for t, gates in enumerate(self.W_input(x).unbind(1)):  # (B, 4C) each
            if keeps is not None:
                h, c = h * keeps[:, t], c * keeps[:, t]
            h, c = lstm_step(gates + self.W_hidden(h), c)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


def lstm_step(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next h and c, (B, C) each, from the sums before the gates, (B, 4C), and the memory c."""
    i, f, g, o = gates.chunk(4, dim=-1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


class LSTM(LanguageModel):
    """Embeddings, layers of memory, an output head. Nothing says where a token stands: order comes from reading in order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        C, fused = config.emb_dim, config.layer_impl == "fused"
        self.tok_emb = Embedding(self.vocab_size, C)
        self.dropout = Dropout(config.drop_rate, fused=fused)
        self.layers = nn.ModuleList(LSTMLayer(C, C, fused=fused) for _ in range(config.n_layers))
        self.out_head = Linear(C, self.vocab_size, bias=False)

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T) -> (B, T, C)."""
        x = self.dropout(self.tok_emb(ids))
        for layer in self.layers:
            x = self.dropout(layer(x, None if packing is None else packing.positions == 0))
        return x

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """As `LanguageModel`, and with forget gates that begin open: their bias is 1 (Jozefowicz et al. 2015)."""
        super().initialize(generator)
        for layer in self.layers:
            assert isinstance(layer, LSTMLayer)
            assert layer.W_input.bias is not None
            layer.W_input.bias[layer.size : 2 * layer.size] = 1.0
