"""A run to one HTML file: the live page with the model inside, which computes in the browser, without a server or a network.

What the page needs is in the file: its style, its script, its model. Its policy allows that script and that style, by their
hashes, and nothing else: no other script, no request. The same run gives the same bytes.
"""

import base64
import copy
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Iterator

import torch

from lib.artifact.io import canonical_json
from lib.config.model import ModelConfig
from lib.config.params import load_params
from lib.data.downloads import load_inputs
from lib.errors import MakegptError, UsageError, nearest
from lib.evaluate.divergence import divergence
from lib.model.registry import count_parameters
from lib.page.bundle import FOLDER, bundle
from lib.page.tokenizer import tokenizer_values
from lib.page.weights import FORMATS, pack, packed_size
from lib.report.html import escape_html
from lib.run.folder import TrainedModel, finished_manifest, load_run
from lib.run.lineage import describe_artifact
from lib.run.provenance import run_provenance

#: The kinds of models that gpt.js computes.
KINDS = ("bigram", "single_head", "multi_head", "single_block", "gpt", "pointer")

#: The largest file, in bytes. Mail of 25 MB, Gmail's limit (support.google.com/mail/answer/6584), carries 18 MB of files.
MOST_BYTES = 18_000_000

#: A bound of the rest of the file, in bytes: style, script, and what the page tells of the run.
_REST = 200_000

_ENTRY = "export_page"


@dataclass(frozen=True)
class ExportedPage:
    """The HTML of a page; what it says of its model, in words and as data."""

    html: str
    description: str
    metadata: dict[str, Any]

    def summary(self) -> str:
        """In one line: the size of the file, and the `description`."""
        return f"{len(self.html.encode()) / 1e6:.1f} MB, {self.description}"


def export_page(folder: Path, weights: str = "float32") -> ExportedPage:
    """The page of the run in `folder`, its matrices in the format `weights`, one of `lib.page.weights.FORMATS`.

    UsageError if the page cannot compute the model or its tokenizer, or would be larger than `MOST_BYTES`; MakegptError if a
    weight is too large for the format, or no number.
    """
    if weights not in FORMATS:
        raise UsageError(f"weights={weights!r} is unknown; {nearest(weights, FORMATS)}")
    trained = load_run(folder, torch.device("cpu"), encoder_decoder=True)
    _check_kind(trained.config, folder)
    values = tokenizer_values(trained.tokenizer)
    _check_size(trained, values, weights, folder)
    packed = [pack(name, tensor, weights) for name, tensor in trained.model.named_parameters()]
    for entry, _, rounded in packed:
        if not torch.isfinite(rounded).all():
            raise MakegptError(f"{folder}: {entry['name']} has numbers that {weights} cannot hold; use --weights float32")
    settings = finished_manifest(folder).parameters
    provenance = run_provenance(folder) | {"texts": _texts_of(folder), "parameters": settings}
    parameters = count_parameters(trained.model)
    metadata = {"parameters": parameters, "weights": weights}
    if weights != "float32":
        rounded_model = copy.deepcopy(trained.model)
        rounded_model.load_state_dict({entry["name"]: rounded for entry, _, rounded in packed}, strict=False)
        differences = divergence(trained.model, rounded_model, trained.tokenizer)
        metadata["more_bits_per_byte"] = float(f"{differences['more_bits_per_byte']:.3g}")
    description = _summary(metadata, provenance["texts"])
    file = {
        "name": provenance["run"],
        "note": f"{provenance['run']}: {description}. Everything is computed in this page; it loads and sends nothing.",
        "parameters": parameters,
        "model": asdict(trained.config),
        "tokenizer": values,
        "tensors": [entry for entry, _, _ in packed],
    }
    content = base64.b64encode(b"".join(content for _, content, _ in packed)).decode("ascii")
    return ExportedPage(_html(file, content, provenance | {"page": metadata}), description, metadata)


def _check_kind(config: ModelConfig, folder: Path) -> None:
    if config.kind not in KINDS:
        raise UsageError(f"{folder} has model.kind={config.kind}, which a page does not compute; it does {', '.join(KINDS)}")


def _check_size(trained: TrainedModel, values: dict[str, Any], weights: str, folder: Path) -> None:
    rest = len(canonical_json(values).encode()) + _REST
    sizes = {
        format: rest + 4 * sum(packed_size(tensor, format) for tensor in trained.model.parameters()) // 3 for format in FORMATS
    }
    if sizes[weights] > MOST_BYTES:
        fitting = [f"--weights {format} makes it {size / 1e6:.1f} MB" for format, size in sizes.items() if size <= MOST_BYTES]
        advice = " and ".join(fitting) or "export a smaller model, or show this one with `serve`"
        raise UsageError(
            f"{folder} in {weights} makes a page of {sizes[weights] / 1e6:.0f} MB, more than the {MOST_BYTES / 1e6:.0f} MB "
            f"that a mail carries; {advice}"
        )


def _texts_of(folder: Path) -> list[dict[str, Any]]:
    """The texts that the run in `folder` goes back to: name, hash, and the license of those in params.yaml.

    Empty if the weights were imported, or if an artifact on the way is damaged or no longer there.
    """
    licenses = {sha256: known.license for known in load_inputs(load_params()).values() for sha256 in known.files.values()}
    try:
        texts = list(_texts(describe_artifact(folder)))
    except MakegptError:  # the run itself is good
        return []
    return [
        {"name": Path(text["path"]).name, "sha256": text["sha256"], "license": licenses.get(text["sha256"])} for text in texts
    ]


def _texts(description: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The descriptions of texts in that of an artifact."""
    for origin in description.get("from", []):
        if origin["is"] == "text":
            yield origin
        yield from _texts(origin)


def _summary(metadata: dict[str, Any], texts: list[dict[str, Any]]) -> str:
    """What the page and the command say of the model."""
    names = ", ".join(text["name"] + (f" ({text['license']})" if text["license"] else "") for text in texts)
    rounding = ""
    if "more_bits_per_byte" in metadata:
        rounding = f", whose rounding costs {metadata['more_bits_per_byte']:.1g} bits/byte on texts that the model writes"
    origin = f"trained on {names}" if texts else "its training text is not known here"
    return f"{metadata['parameters']:,} parameters in {metadata['weights']}{rounding}; {origin}"


def _html(file: dict[str, Any], weights: str, provenance: dict[str, Any]) -> str:
    style = "\n" + (FOLDER / "style.css").read_text(encoding="utf-8")
    icon = base64.b64encode((FOLDER / "icon.svg").read_bytes()).decode("ascii")
    script = "\n" + bundle(_ENTRY)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    origin = json.dumps(provenance, indent=2, ensure_ascii=False)
    changes = {
        '<meta charset="utf-8">': f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<title>makegpt</title>": f"<title>{escape_html(file['name'])} · makegpt</title>",
        'href="icon.svg"': f'href="data:image/svg+xml;base64,{icon}"',
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="serve_page.js"></script>\n': "",
        '<p id="note"></p>': '<p id="note"></p>\n<details><summary>Where this model comes from</summary>\n'
        f'<pre id="provenance">{escape_html(origin)}</pre>\n</details>',
        "</body>": f'<script type="application/json" id="model-file">{_in_script(canonical_json(file))}</script>\n'
        f'<script type="text/plain" id="model-weights">{weights}</script>\n<script>{script}</script>\n</body>',
    }
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert all(page.count(part) == 1 for part in changes), "index.html lacks a part that an exported page replaces"
    return re.sub("|".join(map(re.escape, changes)), lambda part: changes[part[0]], page)


def _hash(source: str) -> str:
    """`source` as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode('ascii')}'"


def _in_script(text: str) -> str:
    """JSON that cannot end the script element it stands in."""
    return text.replace("<", r"\u003c")
