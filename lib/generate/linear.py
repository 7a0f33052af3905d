"""Linear layers and embeddings for inference, in a format that is fast to read; computed by the kernel or by PyTorch."""

import ctypes

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.generate.blocks import BlockMatrix
from lib.generate.kernel import Long, Matrix
from lib.model.layers import Linear

#: The format of a matrix -> its number in `enum Format` of matrix.h.
KERNEL_FORMATS = {"float32": 0, "bfloat16": 1, "int8": 2, "int4": 3}

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LONG = 64  # tokens


class QuantizedLinear(nn.Module):
    """A `Linear` for inference, its weight in `format`, one of `KERNEL_FORMATS`; `kernel` None: PyTorch computes.

    `blocks` is the weight in int8 or int4; otherwise it is `weight`.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: Linear, format: str, kernel: ctypes.CDLL | None) -> None:
        super().__init__()
        matrix = linear.weight.detach()
        is_float = format in _DTYPES
        self.format = format
        self.blocks = None if is_float else BlockMatrix(matrix, 8 if format == "int8" else 4, _lanes(kernel))
        self.register_buffer("weight", matrix.to(_DTYPES[format]).contiguous() if is_float else None)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self._kernel = kernel
        self._outputs = matrix.shape[0]
        self.descriptor = Matrix(
            weight=address(self.weight if self.blocks is None else self.blocks.weight),
            scale=None if self.blocks is None else address(self.blocks.scale),
            minimum=None if self.blocks is None else address(self.blocks.minimum),
            bias=address(self.bias),
            format=KERNEL_FORMATS[format],
            N=matrix.shape[0],
            K=matrix.shape[1],
        )

    @property
    def nbytes(self) -> int:
        """The bytes of the matrix, which each token reads."""
        source = self.blocks or self
        return sum(tensor.nbytes for name, tensor in source.named_buffers(recurse=False) if name != "bias")

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in) -> (…, out)."""
        if self._kernel is not None and not self._is_long(x):
            x = x.contiguous()
            y = x.new_empty(*x.shape[:-1], self._outputs)
            self._kernel.product(ctypes.byref(self.descriptor), x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1])
            return y
        weight = self.weight if self.blocks is None else self.blocks.dequantize()
        assert weight is not None
        return F.linear(x, weight.to(x.dtype), self.bias)

    def _is_long(self, x: Tensor) -> bool:
        """Whether PyTorch is faster: float32 and many tokens of one text. The number of texts does not matter, so that
        each gets the numbers it would get alone.
        """
        return self.format == "float32" and x.dim() == 3 and x.shape[1] > _LONG


class QuantizedEmbedding(nn.Module):
    """The embedding of a tied head in int8: its rows are the head's."""

    def __init__(self, head: QuantizedLinear) -> None:
        super().__init__()
        assert head.blocks is not None
        self.blocks = head.blocks

    def forward(self, ids: Tensor) -> Tensor:
        """ids, any shape -> (…, C)."""
        return self.blocks.rows(ids)


def _lanes(kernel: ctypes.CDLL | None) -> int:
    """The rows that the kernel multiplies at once, L of vectors.h."""
    return 1 if kernel is None else Long.in_dll(kernel, "lanes").value


def address(tensor: Tensor | None) -> int | None:
    """Where the numbers of a tensor are, for the kernel."""
    return None if tensor is None else tensor.data_ptr()
