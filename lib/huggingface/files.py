"""The files of a model in Hugging Face's layout: config.json and safetensors, opened and not read yet.

Only safetensors files are read: other formats can run code when opened.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping

from torch import Tensor

from lib.artifact.io import read_json
from lib.artifact.tensors import open_safetensors
from lib.errors import MakegptError, UsageError

HF_WEIGHTS_FILE = "model.safetensors"
HF_CONFIG_FILE = "config.json"
HF_CHAT_FILE = "chat_template.jinja"
_INDEX = HF_WEIGHTS_FILE + ".index.json"

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in an open file, not read yet."""

    file: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.file.get_slice(self.name).get_shape())

    @property
    def dtype(self) -> str:
        return str(self.file.get_slice(self.name).get_dtype())

    def read(self) -> Tensor:
        """The tensor as float32."""
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor.float()


def weight_files(source: Path) -> list[Path]:
    """The safetensors files of `source`, a folder or one of them; MakegptError if there are none."""
    if not source.exists():
        raise MakegptError(
            f"{source} does not exist; it must be a folder with {HF_CONFIG_FILE} and {HF_WEIGHTS_FILE}, or a {HF_WEIGHTS_FILE}"
        )
    if source.is_file():
        if source.suffix in _PICKLED:
            raise _pickled(source)
        return [source]
    if (source / HF_WEIGHTS_FILE).is_file():
        return [source / HF_WEIGHTS_FILE]
    if (source / _INDEX).is_file():
        index = read_json(source / _INDEX)
        try:
            return [source / Path(name).name for name in sorted(set(index["weight_map"].values()))]
        except (KeyError, TypeError, AttributeError):
            raise MakegptError(f"{source / _INDEX} is damaged: it lists no files") from None
    if pickled := [path for path in sorted(source.iterdir()) if path.suffix in _PICKLED]:
        raise _pickled(pickled[0])
    raise MakegptError(f"{source} has no {HF_WEIGHTS_FILE}; it must be a model in Hugging Face's layout")


def _pickled(path: Path) -> UsageError:
    return UsageError(
        f"{path} is a pickle, which can run code when it is opened, and is not read; convert it to {HF_WEIGHTS_FILE} with "
        "transformers: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )


@contextmanager
def open_tensors(files: list[Path]) -> Iterator[dict[str, LazyTensor]]:
    """The tensors in `files` by name, not read yet; MakegptError if two files have the same."""
    with ExitStack() as stack:
        tensors: dict[str, LazyTensor] = {}
        for path in files:
            file = stack.enter_context(open_safetensors(path))
            for name in file.keys():  # noqa: SIM118 - not a dict
                if name in tensors:
                    raise MakegptError(f"{path}: duplicate tensor {name}")
                tensors[name] = LazyTensor(file, name)
        yield tensors


def read_hf_config(path: Path) -> dict[str, Any]:
    """The content of their config.json at `path`; UsageError if it is that of a run."""
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise MakegptError(f"{path} describes no model; it must be Hugging Face's {HF_CONFIG_FILE}")
    if "model_type" not in saved and "model" in saved:
        raise own_run(path.parent)
    return saved


def check_keys(saved: dict[str, Any], supported: Mapping[str, tuple[Any, ...]], needed: Iterable[str], where: str) -> None:
    """MakegptError for a key of config.json with a value that is not `supported`, or a `needed` one that is missing."""
    for name, allowed in supported.items():
        if (value := saved.get(name, allowed[0])) not in allowed:
            choices = " or ".join(str(choice) for choice in allowed if choice is not None)
            raise MakegptError(f"{where}: {name}={str(value)[:60]} is not supported; it must be {choices or 'null'}")
    if missing := [name for name in needed if saved.get(name) is None]:
        raise MakegptError(f"{where} lacks {', '.join(missing)}")


def own_run(folder: Path) -> UsageError:
    """The error for a `folder` that is a run and no model in their layout."""
    return UsageError(f"{folder} is a makegpt run folder already; use it as it is")
