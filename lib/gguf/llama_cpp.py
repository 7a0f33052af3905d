"""The real llama.cpp, from its shared library: what a GGUF file computes there.

`make llama-cpp` installs the library as a prebuilt package; LLAMA_CPP names the folder of another one. Only version 0.5 is
called, since parameters are passed as structures, whose fields differ from version to version (include/llama.h).

T time, V vocabulary
"""

import ctypes
import os
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Iterator

import numpy as np
from numpy.typing import NDArray

from lib import PROJECT
from lib.errors import MakegptError

VERSION = "0.5."
FOLDER = PROJECT / ".llama-cpp" / "node_modules" / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64"
HOW_TO_INSTALL = "`make llama-cpp` installs it"

_F32, _NO_FLASH_ATTENTION, _ERROR = 0, 0, 4
_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _ContextParams(ctypes.Structure):
    """`llama_context_params` of version 0.5."""

    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max")),
        ("counts", ctypes.c_uint32 * 3),
        *((name, ctypes.c_int32) for name in ("n_threads", "n_threads_batch")),
        ("kinds", ctypes.c_int32 * 4),
        ("flash_attention", ctypes.c_int32),
        ("rope_and_defragmentation", ctypes.c_float * 8),
        ("callback", ctypes.c_void_p * 2),
        *((name, ctypes.c_int32) for name in ("type_k", "type_v")),
        ("abort", ctypes.c_void_p * 2),
        ("choices", ctypes.c_bool * 8),
        ("samplers", ctypes.c_void_p * 2),
    ]


class _ModelParams(ctypes.Structure):
    """`llama_model_params`, used with its defaults; as an argument on the stack it may be longer than theirs."""

    _fields_ = [("defaults", ctypes.c_uint64 * 64)]


class _Batch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        *((name, ctypes.c_void_p) for name in ("embd", "pos", "n_seq_id", "seq_id")),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class LlamaCppModel:
    """A GGUF file, loaded by llama.cpp, with keys and values kept as float32."""

    def __init__(self, library: "_Library", model: int, context: int) -> None:
        self._library, self._model, self._context = library, model, context
        self._vocab = library.call("llama_model_get_vocab", ctypes.c_void_p, model)
        self.vocab_size: int = library.call("llama_vocab_n_tokens", ctypes.c_int32, self._vocab)

    def tokenize(self, text: str) -> list[int]:
        """The ids of `text`, nothing added before or after it, special tokens in it encoded as ordinary text."""
        content = text.encode("utf-8")
        ids = (ctypes.c_int32 * (len(content) + 8))()
        call = self._library.call
        count = call(
            "llama_tokenize", ctypes.c_int32, self._vocab, content, ctypes.c_int32(len(content)), ids,
            ctypes.c_int32(len(ids)), ctypes.c_bool(False), ctypes.c_bool(False),
        )  # fmt: skip
        return list(ids[: max(count, 0)])

    def logits(self, ids: list[int], at_once: int) -> NDArray[np.float32]:
        """The logits (T, V) of `ids` (T,): the first `at_once` of them in one batch, then one by one, from the KV cache."""
        memory = self._library.call("llama_get_memory", ctypes.c_void_p, self._context)
        self._library.call("llama_memory_clear", None, memory, ctypes.c_bool(True))
        return np.concatenate([self._decode(ids[:at_once]), *(self._decode([id]) for id in ids[at_once:])])

    def _decode(self, ids: list[int]) -> NDArray[np.float32]:
        tokens, outputs = (ctypes.c_int32 * len(ids))(*ids), (ctypes.c_int8 * len(ids))(*[1] * len(ids))
        batch = _Batch(n_tokens=len(ids), token=tokens, logits=outputs)
        if status := self._library.call("llama_decode", ctypes.c_int32, self._context, batch):
            raise self._library.refusal(f"cannot decode {len(ids)} tokens (status {status})")
        logits = self._library.call("llama_get_logits", ctypes.POINTER(ctypes.c_float), self._context)
        return np.ctypeslib.as_array(logits, (len(ids), self.vocab_size)).copy()


class _Library:
    """libllama, its backends loaded; `errors` are the lines that it logged as errors since a file was last loaded."""

    def __init__(self, folder: Path) -> None:
        self.errors: list[str] = []
        try:
            ggml, self._llama = (_load(folder, name) for name in ("ggml", "llama"))
        except (OSError, IndexError) as error:
            raise MakegptError(f"llama.cpp cannot be loaded from {folder}: {error}; {HOW_TO_INSTALL}") from None
        with suppress(AttributeError):  # an older one has no function for it
            self.version = self.call("llama_version", ctypes.c_char_p).decode()
            if self.version.startswith(VERSION):
                self._log = _LOG(self._keep_error)
                self.call("llama_log_set", None, self._log, None)
                ggml.ggml_backend_load_all_from_path(bytes(folder))
                self.call("llama_backend_init", None)
                return
        version = getattr(self, "version", "old")
        raise MakegptError(f"{folder} has llama.cpp {version}; version {VERSION}0 is supported, {HOW_TO_INSTALL}")

    def call(self, name: str, returns: Any, *arguments: Any) -> Any:
        """The function `name`; a plain int among the arguments is a pointer."""
        function = getattr(self._llama, name)
        function.restype = returns
        return function(*(ctypes.c_void_p(value) if type(value) is int else value for value in arguments))

    def _keep_error(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR:
            self.errors.append(text.decode("utf-8", "replace").strip())

    def refusal(self, sentence: str) -> MakegptError:
        """`sentence` with the reason: the first error that was logged, since those after it follow from it."""
        return MakegptError(f"llama.cpp {sentence}: {self.errors[0] if self.errors else 'it gives no reason'}")


def _load(folder: Path, name: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(sorted(folder.glob(f"lib{name}.*"))[0]), mode=ctypes.RTLD_GLOBAL)


@cache
def _library(folder: Path) -> _Library:
    return _Library(folder)


def llama_cpp_folder() -> Path | None:
    """The folder of llama.cpp's shared library: $LLAMA_CPP, else the one that `make llama-cpp` fills; None if there is none."""
    if named := os.environ.get("LLAMA_CPP"):
        return Path(named)
    return FOLDER if FOLDER.is_dir() else None


def llama_cpp_version(folder: Path) -> str:
    """The version of the library in `folder`; MakegptError if it cannot be used."""
    return _library(folder).version


@contextmanager
def load_in_llama_cpp(folder: Path, path: Path, length: int) -> Iterator[LlamaCppModel]:
    """The GGUF file `path`, loaded by the library in `folder` for texts of up to `length` tokens.

    MakegptError, with the library's reason, if it refuses the file.
    """
    library = _library(folder)
    library.errors.clear()
    model = library.call(
        "llama_model_load_from_file",
        ctypes.c_void_p,
        bytes(path),
        library.call("llama_model_default_params", _ModelParams),
    )
    if not model:
        raise library.refusal(f"refuses {path}")
    try:
        params = library.call("llama_context_default_params", _ContextParams)
        params.n_ctx = params.n_batch = params.n_ubatch = max(length, 32)
        params.type_k = params.type_v = _F32
        params.flash_attention = _NO_FLASH_ATTENTION
        params.n_threads = params.n_threads_batch = 1  # two wait for each other, long on a busy machine
        context = library.call("llama_init_from_model", ctypes.c_void_p, model, params)
        if not context:
            raise library.refusal(f"makes no context for {path}")
        try:
            yield LlamaCppModel(library, model, context)
        finally:
            library.call("llama_free", None, context)
    finally:
        library.call("llama_model_free", None, model)
