"""torch.compile for the part of a training step that runs inside the model."""

import warnings

import torch
from torch import Tensor

from lib.model.language_model import LanguageModel
from lib.model.loss import SoftTargets
from lib.model.packing import PackedTargets


def should_compile(choice: str, device: torch.device) -> bool:
    """Whether to compile, by `train.compile`: "auto" compiles on CUDA only; on a CPU it gained less than a tenth."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")


class CompiledTrainStep:
    """The loss of a training batch with `model.features` compiled; the model itself is not changed.

    `failure` is None, or the reason why `loss` runs without compilation. Validation calls the model directly: it has other
    shapes, each of which would be compiled again.
    """

    def __init__(self, model: LanguageModel, shapes: list[tuple[int, int]], device: torch.device) -> None:
        """Compile and try out a forward and a backward pass for ids of each of the `shapes`, (B, T)."""
        self.model = model
        self._features = torch.compile(model.features)
        self.failure = self._try(shapes, device)
        if self.failure is not None:
            self._features = model.features

    def loss(
        self, ids: Tensor, targets: Tensor, soft: SoftTargets | None = None, packed: PackedTargets | None = None
    ) -> Tensor:
        """As `LanguageModel.loss`: ids and targets, (B, T) -> nats, summed. Packed texts are not compiled."""
        if packed is not None:
            return self.model.loss(ids, targets, soft, packed)
        features = self._features(ids.contiguous())  # other strides would be compiled again
        return self.model.head_loss(features, targets, soft, ids)

    def _try(self, shapes: list[tuple[int, int]], device: torch.device) -> str | None:
        """The reason if compilation fails: a missing or broken compiler shows at the first pass and not before."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "TensorFloat32")  # advice to round float32, which nobody asked for
                for shape in shapes:
                    x = self._features(torch.zeros(shape, dtype=torch.long, device=device))
                    if x.requires_grad:
                        x.sum().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever it is, training continues without compilation
            lines = str(error).strip().splitlines()
            return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        finally:
            self.model.zero_grad(set_to_none=True)
        return None
