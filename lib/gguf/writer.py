"""A GGUF file, written with the package `gguf`: keys, then tensors, float32 or in fewer bits.

As in llama.cpp's own files, matrices alone get fewer bits: norms, biases and learned positions, few numbers that every token
uses, stay float32. Next to matrices of 4 or 5 bits the embeddings and the head have 8.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Mapping

import numpy as np

#: --quantize -> `general.file_type`, as in llama.cpp (include/llama.h, `llama_ftype`).
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q5_1": 9, "q5_0": 8, "q4_1": 3, "q4_0": 2}

_BLOCK = 32  # numbers that share a scale
_FLOATS = ("f32", "f16", "bf16")
_TABLES = ("token_embd.weight", "output.weight")
_POSITIONS = "position_embd.weight"


def tensor_type(name: str, shape: tuple[int, ...], quantize: str) -> str:
    """The type of the tensor `name` in a file of type `quantize`, both of `FILE_TYPES`.

    Blocks lie in rows: rows that are no whole number of blocks become f16.
    """
    if len(shape) == 1 or name == _POSITIONS:
        return "f32"
    if quantize in _FLOATS:
        return quantize
    if shape[-1] % _BLOCK:
        return "f16"
    return "q8_0" if name in _TABLES else quantize


def write_gguf(path: Path, values: Mapping[str, Any], tensors: Mapping[str, np.ndarray], quantize: str) -> dict[str, int]:
    """Write `tensors` (float32, by their names) and the keys `values`, general.architecture among them, to `path`; the
    values are as in `GGUFFile.values`.

    Returns how many tensors have which type. The same content gives the same bytes.
    """
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
    from gguf.quants import quantize as to_blocks

    kinds = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING}
    writer = GGUFWriter(path, values["general.architecture"])
    for key, value in (dict(values) | _file_type(quantize)).items():
        if key != "general.architecture":
            plain = value
            if isinstance(value, np.ndarray):  # bytes are the package's way to write an array of uint8
                plain = value.tobytes() if value.dtype == np.uint8 else value.tolist()
            writer.add_key_value(key, plain, kinds.get(type(plain), GGUFValueType.ARRAY))
    types: Counter[str] = Counter()
    for name, tensor in tensors.items():
        kind = tensor_type(name, tensor.shape, quantize)
        types[kind] += 1
        ggml_type = GGMLQuantizationType[kind.upper()]
        writer.add_tensor(name, to_blocks(np.ascontiguousarray(tensor), ggml_type), raw_dtype=ggml_type)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return dict(sorted(types.items()))


def _file_type(quantize: str) -> dict[str, int]:
    return {"general.file_type": FILE_TYPES[quantize]} | ({} if quantize in _FLOATS else {"general.quantization_version": 2})
