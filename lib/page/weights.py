"""A model's weights as bytes for a page, in fewer bits if asked for; `tensors.js` reads them.

    float32   as trained
    float16   half as large, each number rounded to 11 significant bits
    int8      a quarter: of each row of a matrix, whole numbers from -127 to 127 times one scale

Vectors, which are few numbers, stay float32.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: The choices of `--weights` -> the bytes of a number of a matrix.
FORMATS = {"float32": 4, "float16": 2, "int8": 1}


class Packed(NamedTuple):
    """A tensor as the page has it: how it is described there, its bytes, and the numbers that those mean."""

    entry: dict[str, Any]
    content: bytes
    rounded: Tensor


def pack(name: str, tensor: Tensor, format: str) -> Packed:
    """The `tensor` called `name`, if it is a matrix, in `format`, one of `FORMATS`."""
    numbers = tensor.detach().cpu().numpy().astype(np.float32)
    if numbers.ndim < 2:
        format = "float32"
    if format == "int8":
        scales = np.abs(numbers).max(axis=1) / np.float32(127)
        integers = np.rint(numbers / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
        content = scales.astype("<f4").tobytes() + integers.tobytes()
        rounded = integers.astype(np.float32) * scales[:, None]
    else:
        with np.errstate(over="ignore"):  # the caller refuses what is not finite
            rounded = numbers.astype(format)
        content = rounded.astype(rounded.dtype.newbyteorder("<")).tobytes()
    entry = {"name": name, "shape": list(numbers.shape), "format": format}
    return Packed(entry, content, torch.from_numpy(rounded.astype(np.float32)))


def packed_size(tensor: Tensor, format: str) -> int:
    """The bytes that `pack` makes of `tensor`."""
    if tensor.dim() < 2:
        return 4 * tensor.numel()
    return FORMATS[format] * tensor.numel() + (4 * len(tensor) if format == "int8" else 0)
