"""The parameters of the model: its kind, its sizes, and the options beyond GPT-2.

Their names are those of the textbook (Raschka, Build a Large Language Model, 2024).
"""

from dataclasses import dataclass
from typing import Any

from lib.config.parameter import parameter
from lib.errors import UsageError

#: The options of kind gpt, as GPT-2 has them.
GPT_2: dict[str, Any] = {
    "tie_weights": False,
    "positions": "learned",
    "norm": "layer",
    "norm_position": "pre",
    "feed_forward": "gelu",
    "n_kv_heads": None,
    "qk_norm": False,
    "attention_pattern": "sliding",
    "summary_tokens": 1,
    "window": None,
    "ngram_order": 1,
    "ngram_rows": None,
    "head_dim": None,
    "ff_dim": None,
    "out_bias": True,
    "norm_eps": 1e-5,
    "rope_base": 10_000.0,
    "rope_factor": 1.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_context": 8192,
    "n_classes": None,
}

#: The kinds of models, simplest first, and the options each has no choice in: they are as in GPT-2.
UNSUPPORTED_OPTIONS: dict[str, dict[str, Any]] = {
    "bigram": GPT_2 | {"n_layers": 1, "n_heads": 1, "drop_rate": 0.0, "qkv_bias": False},
    "lstm": GPT_2 | {"n_heads": 1, "qkv_bias": False},
    "single_head": GPT_2 | {"n_layers": 1, "n_heads": 1},
    "multi_head": GPT_2 | {"n_layers": 1},
    "single_block": GPT_2 | {"n_layers": 1},
    "gpt": {},
    "pointer": {"n_classes": None},
    "encoder_decoder": {
        name: GPT_2[name] for name in ("n_kv_heads", "qk_norm", "window", "ngram_order", "ngram_rows", "n_classes")
    },
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    kind: str = parameter("model architecture", one_of=tuple(UNSUPPORTED_OPTIONS))
    vocab_size: int | None = parameter("vocabulary size, V (null: that of the tokenizer)", at_least=1, at_most=2**32)
    context_length: int = parameter("context length in tokens, T", at_least=1, at_most=2**20)
    emb_dim: int = parameter("embedding dimension, C (unused by bigram)", at_least=1, at_most=2**28)
    n_heads: int = parameter("attention heads per block, H", at_least=1, at_most=4096)
    n_layers: int = parameter("transformer blocks; of an encoder-decoder, in each of both", at_least=1, at_most=4096)
    drop_rate: float = parameter("dropout probability in training", at_least=0.0, at_most=0.999)
    qkv_bias: bool = parameter("use biases in the query, key and value projections")
    tie_weights: bool = parameter("share one matrix between the token embedding and the output head")
    positions: str = parameter("position encoding", one_of=("learned", "sinusoidal", "rotary"))
    norm: str = parameter("normalization: LayerNorm or RMSNorm", one_of=("layer", "rms"))
    norm_position: str = parameter(
        "norms before attention and feed-forward, or after their shortcuts as in the original transformer",
        one_of=("pre", "post"),
    )
    feed_forward: str = parameter(
        "feed-forward layer: GELU or ReLU with two matrices, or SwiGLU with three", one_of=("gelu", "relu", "swiglu")
    )
    n_kv_heads: int | None = parameter("key-value heads, each shared by several query heads (null: n_heads)", at_least=1)
    qk_norm: bool = parameter("apply RMSNorm with learned scales to queries and keys")
    window: int | None = parameter("attention window in tokens, including the current one (null: all)", at_least=1)
    attention_pattern: str = parameter(
        "with a window, what else is attended to: nothing (sliding), every window-th token before it (strided), or, in blocks "
        "of window tokens, the last ones of each earlier block (fixed)",
        one_of=("sliding", "strided", "fixed"),
    )
    summary_tokens: int = parameter("tokens at the end of each block that all later ones attend to (fixed)", at_least=1)
    ngram_order: int = parameter(
        "embed the n-grams before each position up to this order, hashed (1: none)", at_least=1, at_most=8
    )
    ngram_rows: int | None = parameter("rows of each order's table of n-grams (null: no n-grams)", at_least=1, at_most=2**28)
    head_dim: int | None = parameter("size of a head, D (null: emb_dim / n_heads)", at_least=1, at_most=2**16)
    ff_dim: int | None = parameter(
        "width inside the feed-forward layer (null: 4 emb_dim, 8/3 emb_dim with swiglu)", at_least=1, at_most=2**28
    )
    out_bias: bool = parameter("use a bias in the output projection of attention")
    norm_eps: float = parameter("added to the variance, or the mean square, before the root", above=0.0, at_most=0.1)
    rope_base: float = parameter("base of the wavelengths of rotary positions", above=1.0, at_most=1e12)
    rope_factor: float = parameter(
        "Llama 3's scaling of rotary positions: slow waves turn this many times slower (1: off)", at_least=1.0, at_most=1e6
    )
    rope_low_freq_factor: float = parameter(
        "waves that turn fewer times than this within rope_original_context are slowed in full", above=0.0, at_most=1e6
    )
    rope_high_freq_factor: float = parameter(
        "waves that turn more often than this within rope_original_context stay as they are", above=0.0, at_most=1e6
    )
    rope_original_context: int = parameter("context length in tokens before the scaling", at_least=1, at_most=2**32)
    n_classes: int | None = parameter(
        "classes of texts, whose logits replace those of tokens (null: none, or the dataset's with train.task=classify)",
        at_least=2,
        at_most=2**16,
    )
    attention_impl: str = parameter(
        "attention: naive, or PyTorch's fused kernel (single_head: always naive)", one_of=("naive", "fused")
    )
    layer_impl: str = parameter("norms and activation functions: naive, or PyTorch's fused kernels", one_of=("naive", "fused"))

    def __post_init__(self) -> None:
        if self.head_dim is None and self.emb_dim % self.n_heads:
            below = self.emb_dim - self.emb_dim % self.n_heads
            raise UsageError(
                f"model.emb_dim={self.emb_dim} must be divisible by model.n_heads={self.n_heads}; "
                f"use {below or self.n_heads} or {below + self.n_heads}"
            )
        if self.positions == "rotary" and self.head_size % 2:
            if self.head_dim is not None:
                raise UsageError(f"model.positions=rotary needs an even model.head_dim, not {self.head_dim}")
            raise UsageError(
                f"model.positions=rotary needs heads of an even size, but model.emb_dim={self.emb_dim} divided by "
                f"model.n_heads={self.n_heads} is {self.head_size}"
            )
        if self.positions == "sinusoidal" and self.emb_dim % 2:
            raise UsageError(f"model.positions=sinusoidal needs an even model.emb_dim, not {self.emb_dim}")
        self._check_rotary()
        self._check_pattern()
        if (self.ngram_order > 1) != (self.ngram_rows is not None):
            raise UsageError(
                f"model.ngram_order={self.ngram_order} does not go with model.ngram_rows="
                f"{'null' if self.ngram_rows is None else self.ngram_rows}; use an order of 2 or more and a number of rows, "
                "3 and 16384 for example, or 1 and null for no n-grams"
            )
        if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
            divisors = " or ".join(str(n) for n in range(1, self.n_heads + 1) if self.n_heads % n == 0)
            raise UsageError(
                f"model.n_heads={self.n_heads} must be divisible by model.n_kv_heads={self.n_kv_heads}; use {divisors}"
            )
        for name, value in UNSUPPORTED_OPTIONS[self.kind].items():
            if getattr(self, name) != value:
                raise UsageError(
                    f"model.{name}={getattr(self, name)} is not supported by model.kind={self.kind}, where it must be "
                    f"{'null' if value is None else value}; use model.kind=gpt"
                )

    def _check_rotary(self) -> None:
        for name in ("rope_base", "rope_factor"):
            if self.positions != "rotary" and (value := getattr(self, name)) != GPT_2[name]:
                raise UsageError(f"model.{name}={value:g} needs model.positions=rotary, not {self.positions}")
        if self.rope_factor == 1:
            for name in ("rope_low_freq_factor", "rope_high_freq_factor", "rope_original_context"):
                if (value := getattr(self, name)) != GPT_2[name]:
                    raise UsageError(f"model.{name}={value:g} has no effect; it needs a model.rope_factor above 1")
        elif self.rope_low_freq_factor >= self.rope_high_freq_factor:
            raise UsageError(
                f"model.rope_low_freq_factor={self.rope_low_freq_factor:g} must be below "
                f"model.rope_high_freq_factor={self.rope_high_freq_factor:g}"
            )

    def _check_pattern(self) -> None:
        if self.window is None and self.attention_pattern != "sliding":
            raise UsageError(
                f"model.attention_pattern={self.attention_pattern} needs model.window, a number of tokens; the square root of "
                f"model.context_length, {round(self.context_length**0.5)}, leaves the fewest scores"
            )
        if self.summary_tokens > 1 and self.attention_pattern != "fixed":
            raise UsageError(
                f"model.summary_tokens={self.summary_tokens} has no effect with model.attention_pattern="
                f"{self.attention_pattern}; use model.attention_pattern=fixed"
            )
        if self.window is not None and self.summary_tokens > self.window:
            raise UsageError(f"model.summary_tokens={self.summary_tokens} must be at most model.window={self.window}")

    @property
    def has_encoder(self) -> bool:
        """Whether the model reads a source first, and writes a target: an encoder-decoder."""
        return self.kind == "encoder_decoder"

    @property
    def head_size(self) -> int:
        """The size of a head, D."""
        return self.head_dim or self.emb_dim // self.n_heads

    @property
    def qkv_rows(self) -> tuple[int, int, int]:
        """The rows of queries, of keys and of values in the matrix W_qkv: H·D, G·D, G·D."""
        shared = (self.n_kv_heads or self.n_heads) * self.head_size
        return self.n_heads * self.head_size, shared, shared
