"""Shortcuts, also called residual or skip connections: x + f(x) instead of f(x) (He et al. 2016)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lib.model.feed_forward import gelu
from lib.model.layers import Linear


class DeepNetwork(nn.Module):
    """Layers of Linear and GELU with an input of `sizes[0]`, with or without a shortcut around each that keeps the width.

    A demonstration of the gradient of the first layer, not part of a language model.
    """

    def __init__(self, sizes: list[int], *, shortcuts: bool) -> None:
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(Linear(size_in, size_out) for size_in, size_out in pairwise(sizes))
        self.shortcuts = shortcuts

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, sizes[0]) -> (…, sizes[-1])."""
        for layer in self.layers:
            y = gelu(layer(x))
            x = x + y if self.shortcuts and x.shape == y.shape else y
        return x

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Draw weights and biases uniformly from ±1/√(inputs), as PyTorch's own linear layer does."""
        for size_in, layer in zip(self.sizes, self.layers, strict=False):
            bound = size_in**-0.5
            for weight in layer.parameters():
                weight.uniform_(-bound, bound, generator=generator)


def mean_gradients(network: DeepNetwork, x: Tensor) -> list[float]:
    """The mean absolute gradient of each layer's weight, first layer first, for a target output of 0."""
    weights = [weight for name, weight in network.named_parameters() if name.endswith("weight")]
    gradients = torch.autograd.grad((network(x) ** 2).mean(), weights)
    return [gradient.abs().mean().item() for gradient in gradients]
