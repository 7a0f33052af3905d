"""torch.compile for the part of a training step that is the model's own."""

import torch
from torch import Tensor

from lib.model import LanguageModel


def wanted(choice: str, device: torch.device) -> bool:
    """Whether `train.compile` asks for it: "auto" does on CUDA, where it pays; on a CPU it gained less than a tenth."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def compile_features(model: LanguageModel, ids: Tensor) -> str | None:
    """Have `model.features` compiled where it trains, tried out on `ids` (B, T); None, or why it stays as it was.

    A compiler may be missing or fail, which shows at the first pass forward or backward and not before.
    """
    plain = model.features
    fast = torch.compile(plain)
    try:
        found = fast(ids)
        if found.requires_grad:
            found.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever it is, the plain way remains
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    finally:
        model.zero_grad(set_to_none=True)
    # validations see other shapes, each of which would be compiled anew
    model.features = lambda ids: fast(ids) if model.training else plain(ids)  # type: ignore[method-assign]
    return None
