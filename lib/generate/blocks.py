"""Matrices in blocks of 32 numbers along a row, quantized as in GGUF's Q8_0, Q4_1 and Q4_0.

    8 bits    32 integers from -127 to 127 times a scale: 8.5 bits per number
    4 bits    32 integers from 0 to 15 times a scale, plus a minimum: 5 bits per number; 4.5 where each minimum is -8 scales

Scales and minima are float16. Numbers that llama.cpp quantized to one of these types give the same integers, scales and minima
again, so a model that was imported from such a file loses nothing.

N rows, K columns, B blocks per row, R rows interleaved, G = N/R groups of them
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 32

_ROWS = 4096  # quantized at once, for their temporary memory


class BlockMatrix(nn.Module):
    """A matrix (N, K) in blocks of `bits`, 8 or 4; `minimum` None: 0 with 8 bits, -8 scales with 4.

    The kernel multiplies R rows at once, so they are interleaved: `weight` is (G, B, 16, R, 2) with 8 bits: of each row two
    neighboring columns, 16 times. With 4 bits it is (G, B, 4, R, 2, 2): eight columns of each row, four times; even columns
    in the first 16 bits, odd ones in the other 16, the lower bits first. `scale` and `minimum` are (G, B, R).
    """

    weight: Tensor
    scale: Tensor
    minimum: Tensor | None

    def __init__(self, matrix: Tensor, bits: int, interleaved: int = 1) -> None:
        """`matrix`: (N, K), float32, any size; `interleaved`: R. Numbers that are not finite make their block nan."""
        super().__init__()
        self.N, self.K = matrix.shape
        self.bits = bits
        assert _ROWS % interleaved == 0
        parts = torch.split(matrix, _ROWS)
        symmetric = bits == 4 and all(_is_symmetric(_blocks(part)) for part in parts)
        packed = [_pack(part, bits, symmetric, interleaved) for part in parts]
        for name, tensors in zip(("weight", "scale", "minimum"), zip(*packed, strict=True), strict=True):
            self.register_buffer(name, None if tensors[0] is None else torch.cat(tensors))

    def rows(self, ids: Tensor) -> Tensor:
        """The rows `ids`, any shape, as float32: (…, K)."""
        group, lane = ids // self.scale.shape[2], ids % self.scale.shape[2]
        codes = self.weight[group, :, :, lane]  # (…, B, 16, 2) or (…, B, 4, 2, 2)
        if self.bits == 4:
            codes = torch.stack([codes & 15, codes >> 4], dim=-1).movedim(-3, -1)
        scale = self.scale[group, :, lane, None].float()  # (…, B, 1)
        numbers = codes.flatten(-codes.dim() + ids.dim() + 1).float()  # (…, B, 32)
        if self.bits == 4:
            minimum = -8 * scale if self.minimum is None else self.minimum[group, :, lane, None].float()
            numbers = numbers * scale + minimum
        else:
            numbers = numbers * scale
        return numbers.flatten(-2)[..., : self.K]

    def dequantize(self) -> Tensor:
        """All rows: (N, K)."""
        return self.rows(torch.arange(self.N, device=self.weight.device))


def _blocks(matrix: Tensor) -> Tensor:
    """(N, K) -> (N, B, 32), the last column repeated where a block is not full."""
    padded = F.pad(matrix[None], (0, -matrix.shape[1] % BLOCK), mode="replicate")
    return padded.view(matrix.shape[0], -1, BLOCK)


def quantize_8bit(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(…, 32) -> integers from -127 to 127 and scales, (…): number ≈ integer · scale, as Q8_0."""
    scale = _half(blocks.abs().amax(dim=-1) / 127)
    return _integers(blocks / scale[..., None], -127, 127), scale


def quantize_4bit(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(…, 32) -> integers from 0 to 15, scales and minima, (…): number ≈ integer · scale + minimum, as Q4_1."""
    minimum = _half(blocks.amin(dim=-1))
    scale = _half((blocks.amax(dim=-1) - minimum) / 15)
    return _integers((blocks - minimum[..., None]) / scale[..., None], 0, 15), scale, minimum


def quantize_symmetric(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(…, 32) -> integers from 0 to 15 and scales, (…): number ≈ (integer - 8) · scale, as Q4_0.

    The number with the largest magnitude is 0, that is -8 scales; a scale may be negative.
    """
    largest = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))[..., 0]
    scale = _half(largest / -8)
    return _integers((blocks / scale[..., None]).nan_to_num(0, 0, 0) + 8, 0, 15), scale


def _half(numbers: Tensor) -> Tensor:
    """Rounded to float16 and float32 again; nan beyond its range."""
    rounded = numbers.half().float()
    return rounded.where(rounded.isfinite(), torch.nan)


def _integers(numbers: Tensor, low: int, high: int) -> Tensor:
    return numbers.nan_to_num(0, 0, 0).round().clamp(low, high)


def _is_symmetric(blocks: Tensor) -> bool:
    """Whether (N, B, 32) are exactly numbers of Q4_0."""
    for rows in (blocks[:1], blocks):  # nearly all other matrices differ in the first row
        integers, scale = quantize_symmetric(rows)
        if not torch.equal((integers - 8) * scale[..., None], rows):
            return False
    return True


def _pack(matrix: Tensor, bits: int, symmetric: bool, R: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """(N, K) -> weight, scale and minimum of a `BlockMatrix`; N is filled with zeros to a multiple of R."""
    blocks = _blocks(F.pad(matrix, (0, 0, 0, -matrix.shape[0] % R)))
    B = blocks.shape[1]
    minimum: Tensor | None = None
    if bits == 8:
        integers, scale = quantize_8bit(blocks)
        weight = integers.to(torch.int8).view(-1, R, B, 16, 2).permute(0, 2, 3, 1, 4)
    else:
        if symmetric:
            integers, scale = quantize_symmetric(blocks)
        else:
            integers, scale, minimum = quantize_4bit(blocks)
        octets = integers.to(torch.uint8).view(-1, R, B, 4, 2, 2, 2)  # (G, R, B, 4, bytes, bits, odd)
        weight = (octets[..., 0, :] | octets[..., 1, :] << 4).permute(0, 2, 3, 1, 5, 4)

    def interleave(numbers: Tensor) -> Tensor:
        return numbers.half().view(-1, R, B).transpose(1, 2).contiguous()

    return weight.contiguous(), interleave(scale), None if minimum is None else interleave(minimum)
