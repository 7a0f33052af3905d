"""The models that a server has, each under the name of its run."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

from lib import __version__
from lib.api import Model
from lib.artifact.manifest import MANIFEST
from lib.artifact.provenance import software_versions
from lib.errors import UsageError
from lib.model.maps import attentions, block_stack
from lib.model.registry import build_model, count_parameters
from lib.serve.errors import ApiError, invalid, unknown_model


@dataclass(frozen=True)
class ServedModel:
    """A model and what clients read about it; `created` is when it was finished, in seconds since 1970.

    Of equal fingerprints the same request with the same seed gives the same text; on one machine, computed by the kernel, to
    the last bit of each number.
    """

    name: str
    model: Model
    created: int
    fingerprint: str
    parameters: int

    def to_json(self) -> dict[str, Any]:
        """The model as an item of /v1/models."""
        config, network = self.model.config, self.model.network
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "makegpt",
            "kind": config.kind,
            "parameters": self.parameters,
            "vocab_size": config.vocab_size,
            "context_length": config.context_length,
            "layers": config.n_layers if block_stack(network) else 0,  # that a lens can look between
            "heads": config.n_heads if attentions(network) else 0,
            "chat": self.model.has_chat_template,
        }


class ServedModels:
    """The models of a server, by name."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def check_loaded(self) -> None:
        """ApiError 503 while the models are being loaded."""
        if not self._models:
            raise ApiError(503, "the models are being loaded; try again in a moment", headers={"Retry-After": "1"})

    def find(self, name: str | None) -> ServedModel:
        """The model called `name`; the only one for None. ApiError 404 if there is none, 503 while they are being loaded."""
        self.check_loaded()
        if name is None and len(self._models) > 1:
            raise invalid("model", f"model is missing; several are served: {', '.join(self._models)}")
        served = next(iter(self._models.values())) if name is None else self._models.get(name)
        if served is None:
            raise unknown_model(str(name), self._models)
        return served


def names_of(folders: Sequence[Path]) -> list[str]:
    """The names under which runs are served: those of their folders. UsageError if two are equal."""
    names = [folder.resolve().name for folder in folders]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        same = " and ".join(str(folder) for folder, other in zip(folders, names, strict=True) if other == name)
        raise UsageError(f"{same} have the same name, by which clients choose a model; copy one to a folder of another name")
    return names


def load_models(folders: Sequence[Path], *, weights: str, checkpoint: str, device: str) -> ServedModels:
    """Load the runs in `folders`, with the settings of `Model.from_run`."""
    code = f"{__version__} {software_versions()['commit']}"

    def load(name: str, folder: Path) -> ServedModel:
        model = Model.from_run(folder, weights=weights, checkpoint=checkpoint, device=device)
        parts = f"{code} {model.sha256} {weights} {model.device.type} {model.network.no_kernel}"
        fingerprint = f"fp_{hashlib.sha256(parts.encode()).hexdigest()[:12]}"
        created = int((folder / MANIFEST).stat().st_mtime)
        return ServedModel(name, model, created, fingerprint, count_parameters(build_model(model.config, "meta")))

    return ServedModels([load(*pair) for pair in zip(names_of(folders), folders, strict=True)])
