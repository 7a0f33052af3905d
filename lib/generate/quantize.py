"""The inference model: its matrices in a format that is fast to read, its blocks as one step of the kernel.

    float32    as trained
    bfloat16   half the memory: the first 16 of a number's 32 bits, rounded
    int8       a quarter: blocks of 32 numbers in 8 bits, each with a scale
    int4       a sixth: blocks of 32 numbers in 4 bits, each with a scale and a minimum; the output head as in int8

A generated token reads all matrices once, so their size determines its time. Only they are smaller: activations stay float32,
and so do the embeddings, of which a token reads one row; but those that are tied to an int8 head are its rows. (The kernel
multiplies blocks with inputs as 16-bit integers, which also have a scale for every 32.)
"""

import copy
import ctypes
from typing import Sequence

import torch
from torch import Tensor, nn

from lib.generate.kernel import Block, Decoder, Long, Matrix, Norm, Pointer, is_switched_off, load_kernel, why_no_kernel
from lib.generate.linear import QuantizedEmbedding, QuantizedLinear, address
from lib.model.block import TransformerBlock
from lib.model.embeddings import EmbeddingModel
from lib.model.feed_forward import SwiGLU
from lib.model.gpt import GPT
from lib.model.kv_cache import BatchKVCache, KVCache
from lib.model.language_model import LanguageModel, check_ids
from lib.model.layers import Linear
from lib.model.norm import LayerNorm, RMSNorm
from lib.model.packing import Packing
from lib.model.pointer import PointerGPT
from lib.model.single_block import SingleBlock
from lib.model.sparse_attention import SparsePattern

#: The choices of `--weights` -> bits per number of a matrix, scales and minima included.
WEIGHT_FORMATS = {"float32": 32.0, "bfloat16": 16.0, "int8": 8.5, "int4": 5.0}

#: The format of the output head, if it is another one: errors of a logit change the token at once.
HEAD_FORMATS = {"int4": "int8"}


class InferenceModel(LanguageModel):
    """A trained model, ready to generate: its matrices in the format `weights`, its steps computed by the kernel.

    The trained model is not changed and can be trained further. In float32 both share all weights; a smaller format copies
    the matrices. The kernel runs on a CPU; a model with `layer_impl` or `attention_impl` naive runs without it.
    `no_kernel` is None if the kernel computes the matrices, and for GPTs whole steps, or the reason why PyTorch does.
    """

    def __init__(self, model: LanguageModel, weights: str = "float32") -> None:
        """`weights`: one of `WEIGHT_FORMATS`."""
        super().__init__(model.config)
        shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.network = copy.deepcopy(model, shared)
        self.weights = weights
        self.no_kernel = _why_no_kernel(model)
        kernel = load_kernel() if self.no_kernel is None else None
        if kernel is not None or weights != "float32":
            _quantize(self.network, weights, kernel)
        self.out_head = self.network.out_head
        self._step: _Step | None = None
        if kernel is not None and isinstance(self.network, (GPT, SingleBlock)) and not isinstance(self.network, PointerGPT):
            self._step = _Step(self.network, kernel)
        self.eval()

    def features(self, ids: Tensor, kv_cache: BatchKVCache | None = None, packing: Packing | None = None) -> Tensor:
        """ids: (B, T), continuing the KV cache -> the input of the head, (B, T, C)."""
        return self.network.features(ids, kv_cache, packing)

    def predict(self, x: Tensor, ids: Tensor, kv_cache: BatchKVCache | None = None, *, last: bool = False) -> Tensor:
        """As `LanguageModel.predict`."""
        return self.network.predict(x, ids, kv_cache, last=last)

    def cache(self, capacity: int, source: Sequence[int] = ()) -> KVCache | None:
        """As `LanguageModel.cache`."""
        return self.network.cache(capacity, source)

    def next_token_logits(self, ids: Tensor, caches: Sequence[KVCache] = ()) -> Tensor:
        """As `LanguageModel.next_token_logits`; one new token per text is a step of the kernel."""
        has_room = all(cache.length < min(cache.capacity, self.context_length) for cache in caches)
        if self._step is None or not caches or ids.shape[1] > 1 or not has_room:
            return super().next_token_logits(ids, caches)
        new = ids.flatten().tolist()
        check_ids(new, self.vocab_size)
        return self._step(new, caches)

    def kernel_notice(self) -> str | None:
        """One line for the user if PyTorch computes although a kernel was expected; a stage prints it once."""
        if self.no_kernel is None:
            return None
        if self.weights != "float32":
            return f"{self.no_kernel}; {self.weights} weights take less memory, but not less time"
        if self.no_kernel == why_no_kernel() and not is_switched_off():
            return f"{self.no_kernel}; PyTorch computes instead, which is slower"
        return None


def _why_no_kernel(model: LanguageModel) -> str | None:
    device = next(model.parameters()).device
    if device.type != "cpu":
        return f"the C++ kernel runs on a CPU, not on {device.type}"
    if "naive" in (model.config.layer_impl, model.config.attention_impl):
        return "the model is naive (model.layer_impl, model.attention_impl)"
    if model.config.norm_position == "post" or model.config.feed_forward == "relu":
        return "the C++ kernel has no norms after the shortcuts (model.norm_position) and no ReLU (model.feed_forward)"
    return why_no_kernel()


def _quantize(network: LanguageModel, weights: str, kernel: ctypes.CDLL | None) -> None:
    head = network.out_head
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Linear):
                format = HEAD_FORMATS.get(weights, weights) if child is head else weights
                setattr(module, name, QuantizedLinear(child, format, kernel))
    tied = isinstance(network, EmbeddingModel) and isinstance(head, Linear) and head.weight is network.tok_emb.weight
    if tied and isinstance(network.out_head, QuantizedLinear) and network.out_head.blocks is not None:
        network.tok_emb = QuantizedEmbedding(network.out_head)


class _Step:
    """The kernel's `step` for one model: one new token of each text of a batch -> the logits of the next."""

    def __init__(self, model: GPT | SingleBlock, kernel: ctypes.CDLL) -> None:
        blocks = [module for module in model.modules() if isinstance(module, TransformerBlock)]
        attention = blocks[0].attention
        pos_emb: Tensor | None = None
        if model.positions == "learned":
            pos_emb = model.pos_emb.weight
        elif model.positions == "sinusoidal":
            pos_emb = model.waves.table
        rotate = attention.rotate
        self._kernel, self._model = kernel, model
        self._vocab_size = model.vocab_size
        self._decoder = Decoder(
            tok_emb=None if isinstance(model.tok_emb, QuantizedEmbedding) else address(model.tok_emb.weight),
            pos_emb=address(pos_emb),
            tok_scale=model.waves.scale if model.positions == "sinusoidal" else 1.0,
            cos=address(None if rotate is None else rotate.cos),
            sin=address(None if rotate is None else rotate.sin),
            blocks=(Block * len(blocks))(*map(_block, blocks)),
            final_norm=_norm(model.final_norm),
            out_head=model.out_head.descriptor,
            layers=len(blocks),
            C=model.config.emb_dim,
            H=attention.n_heads,
            G=attention.n_kv_heads,
            D=attention.head_size,
            **_pattern(attention.pattern),
        )

    def __call__(self, ids: Sequence[int], caches: Sequence[KVCache]) -> Tensor:
        """The new token of each text -> logits (B, V); its keys and values are added to the text's cache."""
        B = len(caches)
        logits = torch.empty(B, self._vocab_size)
        ngrams: Tensor | None = None
        if self._model.ngram_emb is not None:
            ngrams = self._model.embed_ngrams(torch.tensor(ids)[:, None], caches).contiguous()
        self._kernel.step(
            ctypes.byref(self._decoder),
            B,
            (Long * B)(*ids),
            address(ngrams),
            (Long * B)(*[cache.length for cache in caches]),
            (Pointer * B)(*[cache.address for cache in caches]),
            (Long * B)(*[cache.capacity for cache in caches]),
            logits.data_ptr(),
        )
        for cache, id in zip(caches, ids, strict=True):
            cache.ids.append(id)
        return logits


def _pattern(pattern: SparsePattern | None) -> dict[str, int]:
    """A pattern as in step.cpp."""
    if pattern is None:
        return {"window": 0}
    return {
        "window": pattern.window,
        "strided": pattern.name == "strided",
        "summary_tokens": pattern.summary_tokens if pattern.name == "fixed" else 0,
    }


def _norm(norm: nn.Module) -> Norm:
    """A norm as in step.cpp; nn.Identity is an empty one."""
    if isinstance(norm, LayerNorm):
        return Norm(address(norm.scale), address(norm.shift), norm.eps)
    if isinstance(norm, RMSNorm):
        return Norm(address(norm.scale), None, norm.eps)
    return Norm()


def _block(block: TransformerBlock) -> Block:
    """A block as in step.cpp."""
    attention, feed_forward = block.attention, block.feed_forward
    return Block(
        norm1=_norm(block.norm1),
        q_norm=_norm(attention.q_norm),
        k_norm=_norm(attention.k_norm),
        norm2=_norm(block.norm2),
        qkv=attention.W_qkv.descriptor,
        out_proj=attention.out_proj.descriptor,
        gate=feed_forward.gate.descriptor if isinstance(feed_forward, SwiGLU) else Matrix(),
        expand=feed_forward.expand.descriptor,
        contract=feed_forward.contract.descriptor,
    )
