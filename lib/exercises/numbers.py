"""Numbers for the checks of exercises: the same for every reader."""

import torch
from torch import Tensor


def random_numbers(*shape: int, seed: int = 1) -> Tensor:
    """Normally distributed numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_ids(count: int, vocab_size: int, seed: int = 1) -> Tensor:
    """Token ids, (count,), all equally likely."""
    return torch.randint(vocab_size, (count,), generator=torch.Generator().manual_seed(seed))
