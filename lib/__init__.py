"""Everything a GPT is made of, from the bytes of a text to the tensors of the model.

`from lib import Model` is the front door (docs/python.md).

`lib` never prints, never parses arguments and does nothing on import. Each room is a package (or one module), and imports
only from rooms above its own line in `LAYERS`; a test holds them to it.
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.api import Model as Model

__version__ = "0.1.0"

#: Where `params.yaml` and `docs/` are: the checkout, or this package where it was installed from a wheel.
PROJECT = Path(__file__).resolve().parent.parent

#: The rooms, lowest first.
LAYERS = (
    "errors",  # what a user can cause and mend
    "config",  # what can be set: schema, params.yaml, --set
    "artifact",  # files and folders written atomically, that know where they came from
    "tokenizer",  # text to token ids and back
    "chat",  # conversations, written as texts that a model can continue
    "data",  # files to shards to batches
    "ngrams",  # counted n-grams and their smoothing
    "pipeline",  # what make runs, and which artifacts are stale
    "model",  # the GPT, from scratch
    "device",  # hardware, precision, compilation, process groups
    "generate",  # prompt to text
    "run",  # one model's folder, read back
    "evaluate",  # how good it is, compared with what, how sure
    "huggingface",  # GPT-2, Llama and Qwen3 in and out
    "gguf",  # llama.cpp's files, in and out
    "train",  # dataset to run
    "plot",  # figures of runs and of the code
    "study",  # the depth-and-width sweep
    "reproduce",  # published numbers, measured
    "report",  # one HTML page, one terminal summary
    "book",  # runs the pages of docs/
    "exercises",  # functions to be written by a reader, and checks of them
    "api",  # the front door: `from lib import Model`
    "page",  # the live page, and a model in one HTML file
    "serve",  # HTTP: one model, many clients
)


def __getattr__(name: str) -> Any:
    """`Model`, imported when it is first used: torch takes a second."""
    if name == "Model":
        return importlib.import_module("lib.api").Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
