"""Cut llama.cpp's vocabularies down to what its test strings need: `python -m tests.tokenizer.cut_vocabularies FOLDER`.

FOLDER is vendor/llama.cpp/models of the source package llama-cpp-python 0.3.36 (MIT), which has the vocabularies of released
models, 46 strings each and their ids:

    pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz

A token that is kept is a substring of a piece of a text, an added token in a text, or a single byte. Merges only make
substrings of pieces, in the order of ids, so the tokens of the texts cannot change.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lib.gguf.reader import open_gguf
from lib.gguf.tokenizer import read_tokenizer
from lib.gguf.writer import write_gguf
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.byte_alphabet import BYTE_OF, byte_string
from lib.tokenizer.patterns import LLAMA_CPP_NAMES, split, steps_of

CUT = Path(__file__).with_name("vocabularies.json")
SOURCE = "llama-cpp-python 0.3.36 (MIT), vendor/llama.cpp/models/ggml-vocab-*.gguf, .inp and .out"
SEPARATOR = "\n__ggml_vocab_test__\n"
NORMAL, ADDED, BYTE = 1, 4, 6
KEPT_KEYS = ("model", "pre", "eos_token_id", "add_space_prefix", "unknown_token_id")


def texts_and_ids(path: Path) -> list[tuple[str, list[int]]]:
    """The strings and ids next to the vocabulary `path`."""
    texts = Path(f"{path}.inp").read_bytes().decode("utf-8").split(SEPARATOR)
    lines = Path(f"{path}.out").read_text(encoding="utf-8").splitlines()
    return [(text, [int(id) for id in line.split()]) for text, line in zip(texts, lines, strict=False)]


def cut(path: Path) -> dict[str, Any]:
    """What the texts of the vocabulary `path` need of it, and their ids."""
    goldens = texts_and_ids(path)
    with open_gguf(path) as file:
        values = {key.removeprefix("tokenizer.ggml."): value for key, value in file.values.items()}
    tokens, types = values["tokens"], list(map(int, values["token_type"]))
    if values["model"] == "gpt2":
        steps = steps_of(LLAMA_CPP_NAMES[values["pre"]])
        pieces = {byte_string(piece.encode("utf-8")) for text, _ in goldens for piece in split(text, steps)}
    else:
        pieces = {"▁" + text.replace(" ", "▁") for text, _ in goldens}
    substrings = {piece[a:b] for piece in pieces for a in range(len(piece)) for b in range(a + 1, len(piece) + 1)}
    if values["model"] == "gpt2":
        substrings |= BYTE_OF.keys()

    def is_kept(id: int) -> bool:
        if types[id] == ADDED:
            return any(tokens[id] in text for text, _ in goldens)
        return types[id] == BYTE or (types[id] == NORMAL and tokens[id] in substrings)

    kept = {id: token for id, token in enumerate(tokens) if is_kept(id)}
    ends = {values[key] for key in ("eos_token_id", "unknown_token_id") if key in values}
    kept |= {id: tokens[id] for id in sorted(ends)}
    written = set(kept.values())
    result = {key: values[key] for key in KEPT_KEYS if key in values}
    result["tokens"] = {str(id): kept[id] for id in sorted(kept)}
    result["types"] = {str(id): types[id] for id in sorted(kept) if types[id] != NORMAL}
    if "merges" in values:
        result["merges"] = [merge for merge in values["merges"] if merge.replace(" ", "") in written]
    if "scores" in values:
        result["scores"] = [float(values["scores"][id]) for id in sorted(kept)]
    return result | {"goldens": goldens}


def load_cut() -> dict[str, Any]:
    """The cut vocabularies by name."""
    saved: dict[str, Any] = json.loads(CUT.read_text(encoding="utf-8"))
    assert saved.pop("source") == SOURCE
    return saved


def read_cut(saved: dict[str, Any], path: Path) -> Tokenizer:
    """The tokenizer of the cut vocabulary `saved`, read from a GGUF file that is written to `path`: ids from 0 on."""
    tokens = saved["tokens"]
    values = {key: saved[key] for key in ("model", "pre", "merges") if key in saved} | {
        "tokens": list(tokens.values()),
        "token_type": np.array([saved["types"].get(id, NORMAL) for id in tokens], dtype=np.int32),
        "eos_token_id": list(tokens).index(str(saved["eos_token_id"])),
    }
    if "scores" in saved:
        values["scores"] = np.array(saved["scores"], dtype=np.float32)
    keys = {f"tokenizer.ggml.{key}": value for key, value in values.items()}
    write_gguf(path, {"general.architecture": "llama"} | keys, {"token_embd.weight": np.ones((1, 32), np.float32)}, "f32")
    with open_gguf(path) as file:
        return read_tokenizer(file)


def main(folder: Path) -> None:
    """Write `CUT`, one vocabulary a line."""
    paths = sorted(path for path in folder.glob("ggml-vocab-*.gguf") if Path(f"{path}.out").is_file())
    lines = []
    for path in paths:
        name = path.stem.removeprefix("ggml-vocab-")
        with open_gguf(path) as file:
            model, pre = (file.values.get(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
        if model == "llama" or (model == "gpt2" and pre in LLAMA_CPP_NAMES):
            lines.append(f"{json.dumps(name)}: {json.dumps(cut(path), ensure_ascii=False)}")
    CUT.write_text("{" + f'"source": {json.dumps(SOURCE)},\n' + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
