"""The page's modules in Node.js, which computes as a browser does."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lib.page.bundle import bundle

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not on the PATH")

#: The backend of an exported page, from its text, as export_page.js makes it.
BACKEND = """
const block = (id) => data.page.match(new RegExp(`<script[^>]* id="${id}">(.*?)</script>`, "s"))[1];
const file = JSON.parse(block("model-file"));
const tensors = tensors_module.readTensors(file.tensors, tensors_module.bytesOfBase64(block("model-weights")));
const backend = local_module.localBackend(file, tensors);
"""

#: The logits after each of `data.ids`, by an exported page.
LOGITS = """
const [cache, model] = [new gpt_module.KVCache(), new gpt_module.GPT(file.model, tensors)];
return data.ids.map((id) => [...model.next(cache, id)]);
"""


def run_in_node(code: str, folder: Path, *modules: str, **data: Any) -> Any:
    """What the JavaScript `code`, the body of an async function of `data`, returns; it has the `modules` and their imports."""
    assert NODE is not None
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    script = folder / "script.js"
    main = f"async function main(data) {{\n{code}\n}}\n"
    call = 'main(JSON.parse(require("fs").readFileSync(process.argv[2], "utf-8")))'
    end = f'{call}.then((result) => require("fs").writeFileSync(process.argv[3], JSON.stringify(result)));\n'
    script.write_text(bundle(*modules) + main + end, encoding="utf-8")
    paths = [folder / "data.json", folder / "result.json"]
    done = subprocess.run([NODE, script, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(paths[1].read_text(encoding="utf-8"))


def in_page(page: str, code: str, folder: Path, **data: Any) -> Any:
    """The same with the `backend` of an exported page, its `file` and its `tensors`."""
    return run_in_node(BACKEND + code, folder, "local", "tensors", page=page, **data)


def block(page: str, id: str) -> str:
    """The content of the script element `id` of a page."""
    found = re.search(rf'<script[^>]* id="{id}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]
