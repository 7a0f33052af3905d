"""A model made ready to generate: its matrices in the numbers they are read fastest in, its blocks as one step of the kernel.

    float32    as trained
    bfloat16   half the memory: the first 16 of a number's 32 bits, rounded
    int8       a quarter: each row of a matrix as whole numbers from -127 to 127, times one scale of its own

Each new token reads all matrices once, so their size is what its time is made of. Only they are smaller: what flows between
them stays float32, and so do the embedding tables, of which a token reads a row. (The kernel multiplies int8 weights with
inputs as whole numbers of 16 bits, each row with a scale of its own.)
"""

import ctypes
from typing import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.generate.kernel import Block, Decoder, Long, Matrix, Norm, Pointer, load_kernel
from lib.model.block import TransformerBlock
from lib.model.feed_forward import SwiGLU
from lib.model.gpt import GPT
from lib.model.kv_cache import KVCache
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.norm import LayerNorm, RMSNorm
from lib.model.single_block import SingleBlock

#: What a user calls them, in the order of `Format` in product.h.
WEIGHT_FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

_LONG = 64  # tokens


def quantize(model: LanguageModel, format: str) -> bool:
    """Make `model` ready to generate, its matrices in `format`; it can be trained no more. Whether the kernel computes it.

    A model with its parts written out (`model.layer_impl`, `model.attention_impl` naive) goes on computing as it is written.
    """
    dtype = WEIGHT_FORMATS[format]
    config = model.config
    written_out = "naive" in (config.layer_impl, config.attention_impl)
    fast = load_kernel() if next(model.parameters()).device.type == "cpu" and not written_out else None
    if fast is None and dtype == torch.float32:
        return False
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear):
                setattr(module, name, QuantizedLinear(child, dtype, fast))
    if fast and isinstance(model, (GPT, SingleBlock)):
        plain, step = model.next_token_logits, _Step(model, fast)

        def next_token_logits(ids: Tensor, caches: Sequence[KVCache] = ()) -> Tensor:
            if not caches or ids.shape[1] > 1:
                return plain(ids, caches)
            new = ids.flatten().tolist()
            known = min(new) >= 0 and max(new) < model.vocab_size
            room = all(cache.length < min(cache.capacity, model.context_length) for cache in caches)
            return step(new, caches) if known and room else plain(ids, caches)  # which tells what is wrong

        model.next_token_logits = next_token_logits  # type: ignore[method-assign]
    return fast is not None


def int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, K) as whole numbers of -127 to 127, int8, and a scale for each row, (N,): weight ≈ numbers · scale.

    The largest number of a row becomes ±127, so no number is off by more than half of its row's scale.
    """
    scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


class QuantizedLinear(nn.Module):
    """A `Linear` for use and not for training, its weight of type `dtype`, one of `FORMATS`; `fast` is the kernel."""

    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: Linear, dtype: torch.dtype, fast: ctypes.CDLL | None) -> None:
        super().__init__()
        weight = linear.weight.detach()
        packed, scale = int8_rows(weight) if dtype == torch.int8 else (weight.to(dtype), None)
        self.register_buffer("weight", packed.contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())
        self.fast = fast
        self.described = Matrix(
            _address(self.weight),
            _address(self.scale),
            _address(self.bias),
            list(WEIGHT_FORMATS.values()).index(dtype),
            *weight.shape,
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, in) -> (…, out)."""
        if self.fast is not None and not self._long(x):
            x = x.contiguous()
            y = x.new_empty(*x.shape[:-1], self.weight.shape[0])
            self.fast.product(ctypes.byref(self.described), x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1])
            return y
        if self.weight.dtype == torch.float32:
            return F.linear(x, self.weight, self.bias)
        y = x @ self.weight.to(x.dtype).T
        if self.scale is not None:
            y = y * self.scale
        return y if self.bias is None else y + self.bias

    def _long(self, x: Tensor) -> bool:
        """Whether PyTorch is faster: with float32 and many tokens of one text. How many texts there are does not matter,
        so that each gets the numbers it would get alone.
        """
        return self.weight.dtype == torch.float32 and x.dim() == 3 and x.shape[1] > _LONG


class _Step:
    """The kernel's `step` for one model: one new token for each text of a batch, to the logits of the next."""

    def __init__(self, model: GPT | SingleBlock, fast: ctypes.CDLL) -> None:
        blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
        attention = blocks[0].attention
        table: Tensor | None = None
        if model.positions == "learned":
            table = model.pos_emb.weight
        elif model.positions == "sinusoidal":
            table = model.waves.table
        rotate = attention.rotate
        self._fast = fast
        self._vocab_size = model.vocab_size
        self._decoder = Decoder(
            tok_emb=_address(model.tok_emb.weight),
            pos_emb=_address(table),
            tok_scale=model.waves.scale if model.positions == "sinusoidal" else 1.0,
            cos=_address(None if rotate is None else rotate.cos),
            sin=_address(None if rotate is None else rotate.sin),
            blocks=(Block * len(blocks))(*map(_block, blocks)),
            final_norm=_norm(model.final_norm),
            out_head=model.out_head.described,
            layers=len(blocks),
            C=model.config.emb_dim,
            H=attention.n_heads,
            G=attention.n_kv_heads,
            D=attention.head_size,
            window=attention.window or 0,
        )

    def __call__(self, ids: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """The new token of each text -> logits (B, V); its keys and values are added to the text's cache."""
        B = len(caches)
        logits = torch.empty(B, self._vocab_size)
        self._fast.step(
            ctypes.byref(self._decoder),
            B,
            (Long * B)(*ids),
            (Long * B)(*[cache.length for cache in caches]),
            (Pointer * B)(*[cache.address for cache in caches]),
            (Long * B)(*[cache.capacity for cache in caches]),
            logits.data_ptr(),
        )
        for cache in caches:
            cache.length += 1
        return logits


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _norm(norm: nn.Module) -> Norm:
    """A norm as the kernel has it; nn.Identity is none."""
    if isinstance(norm, LayerNorm):
        return Norm(_address(norm.scale), _address(norm.shift), norm.eps)
    if isinstance(norm, RMSNorm):
        return Norm(_address(norm.scale), None, norm.eps)
    return Norm()


def _block(block: TransformerBlock) -> Block:
    """A block as the kernel has it."""
    attention, feed_forward = block.attention, block.feed_forward
    return Block(
        norm1=_norm(block.norm1),
        q_norm=_norm(attention.q_norm),
        k_norm=_norm(attention.k_norm),
        norm2=_norm(block.norm2),
        qkv=attention.W_qkv.described,
        out_proj=attention.out_proj.described,
        gate=feed_forward.gate.described if isinstance(feed_forward, SwiGLU) else Matrix(),
        expand=feed_forward.expand.described,
        contract=feed_forward.contract.described,
    )
