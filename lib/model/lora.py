"""LoRA: a frozen matrix W and a trained product of two narrow ones, W + (α/r)·BA (Hu et al. 2021).

r rank; the matrix is (out, in), A (r, in) and B (out, r)
"""

from typing import Collection, Iterator, Mapping, cast

import torch
from torch import Tensor, nn

from lib.errors import UsageError
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear

#: The matrices that can have adapters: the name of a linear layer -> what it computes, an adapter for each.
PARTS = {
    "W_query": ("query",),
    "W_key": ("key",),
    "W_value": ("value",),
    "W_qkv": ("query", "key", "value"),
    "W_kv": ("key", "value"),
    "out_proj": ("out",),
    "gate": ("gate",),
    "expand": ("expand",),
    "contract": ("contract",),
}


ADAPTERS = ".adapters."  # in the name of every parameter of an adapter


class Adapter(nn.Module):
    """(α/r)·BAx: (…, in) -> (…, out). B is 0 at first, so that nothing changes before the first step.

    A is drawn as PEFT draws it, uniform between ±1/√in (He et al. 2015, with a = √5).
    """

    def __init__(self, size_in: int, size_out: int, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.empty(rank, size_in).uniform_(-(size_in**-0.5), size_in**-0.5, generator=generator))
        self.B = nn.Parameter(torch.zeros(size_out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.A.T * self.scale) @ self.B.T  # r numbers per position between the two

    def product(self) -> Tensor:
        """(α/r)·BA, (out, in)."""
        return self.B @ self.A * self.scale


class AdaptedLinear(Linear):
    """The layer `linear`, frozen, with an adapter for some of its `parts`: name -> rows of the matrix, in order."""

    def __init__(self, linear: Linear, parts: Mapping[str, int], adapters: Mapping[str, Adapter]) -> None:
        nn.Module.__init__(self)
        self.frozen, self.bias = linear.requires_grad_(False).weight, linear.bias
        self.parts, self.rows = tuple(parts), list(parts.values())
        self.adapters = nn.ModuleDict(adapters)

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:  # type: ignore[override]
        """The merged matrix, W + (α/r)·BA, (out, in): for whoever needs it as a whole. Training does not."""
        merged = self.frozen.clone()
        for rows, adapter in zip(merged.split(self.rows), self._adapters(), strict=True):  # type: ignore[no-untyped-call]
            if adapter is not None:
                rows += adapter.product()
        return merged

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in) -> (…, out), W's product and the adapters', without the merged matrix."""
        y = x @ self.frozen.T
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)
        outputs = zip(y.split(self.rows, dim=-1), self._adapters(), strict=True)  # type: ignore[no-untyped-call]
        adapted = [output if adapter is None else output + adapter(x) for output, adapter in outputs]
        return adapted[0] if len(adapted) == 1 else torch.cat(adapted, dim=-1)

    def _adapters(self) -> list[Adapter | None]:
        """The adapter of each part, or None."""
        return [cast(Adapter, self.adapters[part]) if part in self.adapters else None for part in self.parts]


def add_adapters(
    model: LanguageModel,
    rank: int,
    alpha: float,
    targets: Collection[str] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Freeze `model` and give `targets`, names of `PARTS` (None: all), adapters; it computes what it did, bit for bit.

    UsageError if it has no matrix of one of the names.
    """
    layers = list(_linear_layers(model))
    known = list(dict.fromkeys(part for _, name, _ in layers for part in PARTS[name]))
    targets = known if targets is None else targets
    unknown = [target for target in targets if target not in known]
    if unknown or not targets:
        raise UsageError(
            f"train.lora_targets={(*unknown, 'all')[0]} is no matrix of this model; "
            f"{', '.join(known) or 'none of its matrices'} can have adapters"
        )
    model.requires_grad_(False)
    for parent, name, linear in layers:
        names = PARTS[name]
        sizes = (linear.weight.shape[0],) if len(names) == 1 else model.config.qkv_rows[-len(names) :]
        parts = dict(zip(names, sizes, strict=True))
        adapters = {
            part: Adapter(linear.weight.shape[1], rows, rank, alpha, generator)
            for part, rows in parts.items()
            if part in targets
        }
        if adapters:
            setattr(parent, name, AdaptedLinear(linear, parts, adapters))


def _linear_layers(model: LanguageModel) -> Iterator[tuple[nn.Module, str, Linear]]:
    """The linear layers that can have adapters, lowest first: the module each is in, its name there, and itself."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, Linear) and name in PARTS:
                yield parent, name, child


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that `model` has without adapters, their products added: as if all of it had been trained."""
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    weights: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        layer, _, rest = name.partition(ADAPTERS)
        if rest:
            continue
        layer, _, own = name.rpartition(".")
        is_frozen = own == "frozen" and layer in adapted
        weights[f"{layer}.weight" if is_frozen else name] = adapted[layer].weight if is_frozen else weight
    return weights
