"""What batches of a large corpus cost: seconds a batch at near and far steps, and memory, over shards of zeros.

python bench/data.py [GIGABYTES] [FOLDER]      the shards are sparse files and take no space on most file systems
"""

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from lib.artifact.manifest import describe_files, read_manifest, write_manifest
from lib.config.params import load_params, resolve_config
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.text import open_document

SHARD = 1 << 29  # tokens a shard, 1 GB of uint16


def grow(folder: Path, gigabytes: int) -> None:
    """Put so many shards of zeros behind those of a tokens folder."""
    manifest = read_manifest(folder, "tokens")
    outputs = manifest.outputs
    for number in range(1, gigabytes + 1):
        path = folder / f"shard-{number:05d}.npy"
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (SHARD,)})
            file.truncate(file.tell() + 2 * SHARD)
        outputs = outputs | describe_files(folder, [path.name])
    write_manifest(folder, replace(manifest, outputs=outputs))


def own_memory() -> int:
    """Bytes that the process alone holds; mapped pages of the shards, which the system takes back at need, are not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main(gigabytes: int, scratch: Path) -> None:
    config = resolve_config(load_params(), "gpt_balanced")
    text, tokens, folder = (scratch / part for part in ("text.txt", "tokens", "dataset"))
    text.write_text("to be or not to be " * 1000)
    write_corpus(tokens, [open_document(text)], "gpt2", config.tokenize, started="", on_bytes=lambda _: None)
    grow(tokens, gigabytes)
    build_dataset(tokens, folder, context_length=256, stride=None, val_fraction=0.1, started="")
    before = own_memory()
    began = time.perf_counter()
    data = Dataset(folder)
    print(f"{len(data.tokens):,} tokens, {data.windows:,} windows; opened and verified in {time.perf_counter() - began:.1f} s")
    for step in (0, 1_000, 1_000_000, 1_000_000_000):
        began = time.perf_counter()
        for number in range(100):
            data.batch(1, step + number, 4)
        print(f"a batch at step {step:>13,}: {(time.perf_counter() - began) * 10:.2f} ms")
    print(f"memory of its own: {before / 1e6:.0f} MB before the corpus was opened, {own_memory() / 1e6:.0f} MB now")


if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, folder)
    finally:
        shutil.rmtree(folder)
