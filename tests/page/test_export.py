"""An exported page is one file: complete, the same every time, and nothing in it can act as markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from lib.errors import MakegptError, UsageError
from lib.page import export
from lib.page.bundle import bundle
from lib.page.export import export_page
from lib.page.weights import FORMATS, pack, packed_size
from lib.tokenizer.word import WordTokenizer
from stages.export_page import _WEIGHTS
from tests.conftest import Here
from tests.gguf.test_export import BPE, model_config, write_run
from tests.page.node import block, in_page, needs_node


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text inside of each script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []  # attributes would be those of the last element
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append((dict(attrs).get("id") or tag, ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem:
            name, text = self.raw.pop()
            self.raw.append((name, text + data))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", BPE, model_config(BPE))
    return tmp_path / "run"


def test_the_page_is_one_file_whose_policy_allows_its_own_script_and_style_alone(run: Path) -> None:
    elements = Elements(export_page(run).html)
    assert [name for name, _ in elements.raw] == ["style", "model-file", "model-weights", "script"]
    contents = dict(elements.raw)
    (policy,) = [attributes["content"] for _, attributes in elements.all if "http-equiv" in attributes]
    hashes = [base64.b64encode(hashlib.sha256(contents[name].encode()).digest()).decode() for name in ("script", "style")]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    addresses = [attributes[name] for _, attributes in elements.all for name in ("src", "href") if name in attributes]
    assert [str(address).partition(",")[0] for address in addresses] == ["data:image/svg+xml;base64"]
    assert bundle("export_page") in contents["script"]


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    assert export_page(run, "int8").html == export_page(run, "int8").html


def test_the_page_tells_where_the_model_comes_from(copied: Path) -> None:
    page = export_page(copied / "run")
    found = re.search(r'<pre id="provenance">(.*?)</pre>', page.html, re.DOTALL)
    assert found is not None
    provenance = json.loads(found[1].replace("&#34;", '"').replace("&amp;", "&"))
    manifest = json.loads((copied / "run" / "manifest.json").read_text())
    assert provenance["run"] == "run"
    assert provenance["commit"] == manifest["sessions"][-1]["versions"]["commit"]
    assert provenance["files"]["model.safetensors"] == manifest["outputs"]["model.safetensors"]["sha256"]
    text = (copied / "play.txt").read_bytes()
    assert provenance["texts"] == [{"name": "play.txt", "sha256": hashlib.sha256(text).hexdigest(), "license": None}]
    assert provenance["page"]["parameters"] == manifest["metadata"]["parameters"]
    assert str(copied) not in page.html
    assert "trained on play.txt. Everything is computed in this page" in json.loads(block(page.html, "model-file"))["note"]


def test_a_text_of_params_yaml_is_named_with_its_license(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256((copied / "play.txt").read_bytes()).hexdigest()
    known = {"inputs": {"play": {"about": "a play", "license": "CC0", "files": {"play.txt": sha256}}}}
    monkeypatch.setattr(export, "load_params", lambda: known)
    note = json.loads(block(export_page(copied / "run").html, "model-file"))["note"]
    assert "trained on play.txt (CC0)." in note


def test_a_run_whose_dataset_is_damaged_is_exported_without_its_texts(copied: Path) -> None:
    (copied / "dataset" / "manifest.json").write_text("{")
    page = export_page(copied / "run")
    assert page.summary().endswith("its training text is not known here")
    assert "its training text is not known here. Everything" in json.loads(block(page.html, "model-file"))["note"]


HOSTILE = ["</script>", "<script>alert`1`</script>", "<!--", "-->", "<img/src=x/onerror=alert`1`>", "&lt;", "]]>"]


@needs_node
def test_no_name_and_no_token_can_act_as_markup(tmp_path: Path) -> None:
    tokenizer = WordTokenizer([*HOSTILE, "<|endoftext|>", "<unk>"])
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    write_run(folder, tokenizer, model_config(tokenizer))
    page = export_page(folder).html
    elements = Elements(page)
    assert [name for name, _ in elements.raw] == ["style", "model-file", "model-weights", "script"]
    assert [attributes for _, attributes in elements.all if "onerror" in attributes] == []
    assert json.loads(block(page, "model-file"))["tokenizer"]["words"][: len(HOSTILE)] == HOSTILE
    found = in_page(page, "return await backend.analyze(file.name, {prompt: data.text});", tmp_path, text=" ".join(HOSTILE[:2]))
    assert found["model"] == folder.name
    assert [token["text"] for token in found["tokens"]] == HOSTILE[:2]


def test_a_page_that_is_too_large_is_refused_with_what_makes_it_smaller(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST_BYTES", 500_000)
    with pytest.raises(UsageError, match=r"in float32 makes a page of .* MB, .*; --weights int8 makes it 0\.\d MB$"):
        export_page(run)
    assert len(export_page(run, "int8").html.encode()) < 500_000
    monkeypatch.setattr(export, "MOST_BYTES", 5_000)
    with pytest.raises(UsageError, match="export a smaller model, or show this one with `serve`"):
        export_page(run)


@pytest.mark.parametrize("weights", FORMATS)
def test_a_page_is_never_larger_than_was_allowed(run: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = export_page(run, weights)
    size = len(page.html.encode())
    assert f"{size / 1e6:.1f} MB, " in page.summary()
    monkeypatch.setattr(export, "MOST_BYTES", size + export._REST)
    assert export_page(run, weights).html == page.html
    monkeypatch.setattr(export, "MOST_BYTES", size - 1)
    with pytest.raises(UsageError, match="MB that a mail carries"):
        export_page(run, weights)


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("shape", [(5,), (3, 7), (1, 1)])
def test_a_packed_tensor_has_the_size_that_was_foretold_and_zeros_stay_zeros(weights: str, shape: tuple[int, ...]) -> None:
    packed = pack("a", torch.zeros(shape), weights)
    assert len(packed.content) == packed_size(torch.zeros(shape), weights)
    assert torch.equal(packed.rounded, torch.zeros(shape))


@pytest.mark.parametrize(("value", "weights"), [(1e6, "float16"), (float("nan"), "float32")])
def test_a_number_that_the_format_cannot_hold_is_refused_with_its_tensor(
    run: Path, value: float, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = export.load_run(run, torch.device("cpu"))
    with torch.no_grad():
        trained.model.get_parameter("tok_emb.weight")[3, 5] = value
    monkeypatch.setattr(export, "load_run", lambda *_, **__: trained)
    with pytest.raises(MakegptError, match=rf"tok_emb\.weight has numbers that {weights} cannot hold"):
        export_page(run, weights)


def test_modules_that_a_page_cannot_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.page import bundle as bundles

    monkeypatch.setattr(bundles, "FOLDER", tmp_path)
    sources = {
        "a": 'import { b } from "./b.js";\nexport const a = b;\n',
        "b": 'import { a } from "./a.js";\nexport const b = a;\n',
        "whole": 'import * as all from "./a.js";\n',
        "default": "export default 1;\n",
        "late": 'const a = await import("./a.js");\n',
        "ends": 'const a = "</script>";\n',
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.js").write_text(source)
    with pytest.raises(ValueError, match="a imports b imports a"):
        bundle("a")
    for name in ("whole", "default", "late", "ends"):
        with pytest.raises(ValueError, match=rf"{name}\.js: .* cannot be part of a script in a page"):
            bundle(name)


def test_the_stage_offers_every_format() -> None:
    assert tuple(FORMATS) == _WEIGHTS


def test_the_command_writes_the_page_and_says_what_it_holds(run: Path, tmp_path: Path, here: Here) -> None:
    said = here("export-page", run, "-o", tmp_path / "page.html", "--weights", "int8").err
    assert re.search(r"page\.html: 0\.\d MB, [\d,]+ parameters in int8, whose rounding costs \S+ bits/byte", said)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == export_page(run, "int8").html
    assert here("export-page", run, "-o", "-").out == export_page(run).html
    assert "does not exist" in here("export-page", tmp_path / "missing", "-o", tmp_path / "b.html", code=1).err
    assert not (tmp_path / "b.html").exists()
