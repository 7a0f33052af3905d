"""The tensors of a GGUF file, from and to our parameters.

H heads, G key and value heads, D head size
"""

from dataclasses import replace
from typing import Mapping

import numpy as np
import torch
from torch import Tensor

from lib.config.model import ModelConfig
from lib.gguf.architecture import Architecture
from lib.gguf.config import ROPE_FREQS, architecture_in
from lib.gguf.llama import interleave_halves, split_halves
from lib.gguf.reader import GGUFFile
from lib.model.positions import frequencies, rope_scaling
from lib.model.registry import build_model
from lib.run.weights import check_shapes


def read_tensors(file: GGUFFile, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of the model of `config`, by our names, float32; MakegptError if a tensor does not belong to it."""
    architecture = architecture_in(file)
    shapes = parameter_shapes(config)
    expected: dict[str, tuple[int, ...]] = {}
    for ours, shape in shapes.items():
        theirs = architecture.theirs(ours)
        rows = [shape[0]] if len(theirs) == 1 else config.qkv_rows
        expected |= {name: (count, *shape[1:]) for name, count in zip(theirs, rows, strict=True)}
    shapes_in_file = {name: info.shape for name, info in file.tensors.items() if name != ROPE_FREQS or not architecture.rotary}
    check_shapes(expected, shapes_in_file, f"{file.path} is not the expected model")
    tensors = {}
    for ours in shapes:
        parts = [file.read(name) for name in architecture.theirs(ours)]
        if architecture.interleaved and len(parts) == 3:
            parts[:2] = [split_halves(part, heads) for part, heads in zip(parts, _qk_heads(config), strict=False)]
        tensors[ours] = torch.from_numpy(np.concatenate(parts) if len(parts) > 1 else parts[0])
    return tensors


def to_tensors(weights: Mapping[str, Tensor], config: ModelConfig, architecture: Architecture) -> dict[str, np.ndarray]:
    """Our `weights` of the model of `config` as the float32 tensors of a file; missing biases become zeros."""
    tensors: dict[str, np.ndarray] = {}
    for ours, shape in parameter_shapes(replace(config, **architecture.written)).items():
        rows = weights[ours].detach().float().numpy() if ours in weights else np.zeros(shape, np.float32)
        theirs = architecture.theirs(ours)
        parts = [rows] if len(theirs) == 1 else np.split(rows, np.cumsum(config.qkv_rows)[:2])
        if architecture.interleaved and len(parts) == 3:
            parts[:2] = [interleave_halves(part, heads) for part, heads in zip(parts, _qk_heads(config), strict=False)]
        tensors |= dict(zip(theirs, parts, strict=True))
    if scaling := rope_scaling(config):
        tensors[ROPE_FREQS] = 1 / scaling.scales(frequencies(config.head_size, config.rope_base)).numpy()
    return tensors


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters of a model of `config`, by our names."""
    return {name: tuple(parameter.shape) for name, parameter in build_model(config, "meta").named_parameters()}


def _qk_heads(config: ModelConfig) -> tuple[int, int]:
    return config.n_heads, config.n_kv_heads or config.n_heads
