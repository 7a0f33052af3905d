"""torch.compile for the part of a training step that is the model's own."""

import torch
from torch import Tensor

from lib.model.kv_cache import BatchKVCache
from lib.model.language_model import LanguageModel


def compile_wanted(choice: str, device: torch.device) -> bool:
    """Whether `train.compile` asks for it: "auto" does on CUDA, where it pays; on a CPU it gained less than a tenth."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


def compile_features(model: LanguageModel, shapes: list[tuple[int, int]], device: torch.device) -> str | None:
    """Have `model.features` compiled where it trains, tried out on ids of `shapes` (B, T); None, or why it stays as it was.

    A compiler may be missing or fail, which shows at the first pass forward or backward and not before.
    """
    plain = model.features
    fast = torch.compile(plain)
    try:
        for shape in shapes:
            found = fast(torch.zeros(shape, dtype=torch.long, device=device))
            if found.requires_grad:
                found.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever it is, the plain way remains
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    finally:
        model.zero_grad(set_to_none=True)

    # validations see other shapes, each of which would be compiled anew
    def features(ids: Tensor, kv_cache: BatchKVCache | None = None) -> Tensor:
        return fast(ids) if model.training else plain(ids, kv_cache)

    model.features = features  # type: ignore[method-assign]
    return None


def undo_compile(model: LanguageModel) -> None:
    """Have `model.features` as its class has it."""
    model.__dict__.pop("features", None)
