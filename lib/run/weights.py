"""Weights on disk into a model, every shape checked."""

import re
from pathlib import Path
from typing import Mapping

import torch

from lib.artifact.tensors import load_tensors, open_safetensors
from lib.config.model import ModelConfig
from lib.errors import MakegptError
from lib.model.finetuning import Finetuning, select_trained
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model

_NAMED = 8  # tensors that an error names; of more it tells how many


def names_in_layout(names: Mapping[str, tuple[str, ...]], ours: str) -> tuple[str, ...]:
    """The names that a layout has for our parameter `ours`, by its table `names`, in which {n} is the number of a block."""
    number = re.search(r"\d+", ours)
    return tuple(name.format(n=number and number[0]) for name in names[re.sub(r"\.\d+\.", ".{n}.", ours)])


def load_model(config: ModelConfig, path: Path, device: torch.device) -> LanguageModel:
    """The model of `config` with the weights in the file `path`; MakegptError if they do not fit.

    A configuration may claim any size, so it is held against the file before memory is taken for it.
    """
    with open_safetensors(path) as file:
        check_model_fits(config, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118
    model = build_model(config, device)
    fill_weights(model, load_tensors(path)[0], path)
    return model


def load_finetuned(config: ModelConfig, base: Path, path: Path, options: Finetuning, device: torch.device) -> LanguageModel:
    """The model of `config` whose trained weights are in `path`, the frozen ones in the `base` it was trained from."""
    model = build_model(config)
    fill_base(model, base)
    select_trained(model, options)
    fill_weights(model, load_tensors(path)[0], path)
    return model.to(device)


def fill_base(model: LanguageModel, path: Path) -> None:
    """Copy the weights of a finished run in `path` into `model`; of a longer table of learned positions the first rows.

    Tokens that the run lacks begin at the mean of those that it has. The head of a classifier, which a model of texts does not
    have, is left as it is.
    """
    tensors = load_tensors(path)[0]
    if model.config.n_classes:
        tensors["out_head.weight"] = model.get_parameter("out_head.weight").detach()
    if "pos_emb.weight" in tensors:
        tensors["pos_emb.weight"] = tensors["pos_emb.weight"][: model.context_length]
    extend_vocabulary(tensors, model)
    fill_weights(model, tensors, path)


def extend_vocabulary(tensors: dict[str, torch.Tensor], model: LanguageModel) -> None:
    """Give `tensors` rows for the tokens that `model` has more, each the mean of the rows: its embeddings and its head.

    A token that was never seen then is as likely as the average one (Hewitt 2021). The bigram's table grows in columns too.
    """
    for name, weight in model.named_parameters():
        tensor = tensors.get(name)
        if tensor is None or not model.is_embedding(name):
            continue
        for dim in range(tensor.dim()):
            if (new := weight.shape[dim] - tensor.shape[dim]) > 0 and weight.shape[dim] == model.vocab_size:
                tensor = torch.cat([tensor, tensor.mean(dim, keepdim=True).expand(*_sizes(tensor, dim, new))], dim)
        tensors[name] = tensor


def _sizes(tensor: torch.Tensor, dim: int, size: int) -> list[int]:
    """The shape of `tensor` with `size` in dimension `dim`."""
    return [size if number == dim else length for number, length in enumerate(tensor.shape)]


def check_model_fits(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """MakegptError if the model of `config` has other tensors than those of `shapes`; nothing of its size is built."""
    complaint = f"{path} does not fit the model in its config.json"
    if config.n_layers > len(shapes):
        raise MakegptError(f"{complaint}: {len(shapes)} tensors are no {config.n_layers} blocks")
    expected = _shapes(dict(build_model(config, "meta").named_parameters()))
    check_shapes(expected, shapes, complaint)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained: all of them, unless some are frozen."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def fill_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Copy `tensors` into the parameters that are trained; MakegptError names those missing, unexpected or of another shape."""
    expected = trained_weights(model)
    check_shapes(_shapes(expected), _shapes(tensors), f"{path} does not fit the model in its config.json")
    if odd := [name for name in expected if tensors[name].dtype != torch.float32]:
        raise MakegptError(f"{path} is damaged: {odd[0]} holds {tensors[odd[0]].dtype}, not torch.float32")
    with torch.no_grad():
        for name, weight in expected.items():
            weight.copy_(tensors[name])


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(expected: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], complaint: str) -> None:
    """MakegptError with the `complaint` and every tensor that is missing, spare or of another shape than `wanted`."""
    both = [name for name in expected if name in shapes]
    parts = [
        _listed("missing: ", [name for name in expected if name not in shapes]),
        _listed("not part of it: ", sorted(shapes.keys() - expected.keys())),
        _listed(
            "",
            [f"{name} has the shape {shapes[name]}, not {expected[name]}" for name in both if shapes[name] != expected[name]],
        ),
    ]
    if any(parts):
        raise MakegptError(f"{complaint}: {'; '.join(filter(None, parts))}")


def _listed(head: str, items: list[str]) -> str:
    """The items in words, the first few of many; nothing if there are none."""
    more = f", and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return f"{head}{', '.join(items[:_NAMED])}{more}" if items else ""
