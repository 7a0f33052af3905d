"""Tensors on disk: the format's own bytes, and nothing else."""

import signal
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from lib.artifact.io import canonical_json
from lib.artifact.tensors import _DTYPES, load_tensors, read_tensor_metadata, save_tensors

SHAPES = ((), (0,), (3,), (2, 5), (7, 1, 3))


def test_the_bytes_are_those_of_the_formats_own_library_for_every_dtype_and_shape(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = {
        f"{dtype}/ü{number}": torch.randint(0, 2, shape, generator=draw).to(dtype)
        for dtype in reversed(_DTYPES)
        for number, shape in enumerate(SHAPES)
    }
    tensors['a "name"\n\x01\u2028'] = torch.ones(3, 4)
    metadata = {"text": "é\n", "number": 1}
    save_tensors(tmp_path / "a.safetensors", tensors, metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == save(tensors, {"makegpt": canonical_json(metadata)})
    read, read_metadata = load_tensors(tmp_path / "a.safetensors")
    assert read_metadata == metadata
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_that_is_a_view_is_written_as_the_numbers_that_it_shows(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    save_tensors(tmp_path / "a.safetensors", {"turned": whole.t(), "part": whole[1:, ::2]}, {})
    read, _ = load_tensors(tmp_path / "a.safetensors")
    assert torch.equal(read["turned"], whole.t())
    assert torch.equal(read["part"], whole[1:, ::2])


def test_what_a_killed_process_leaves_of_a_checkpoint_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    program = (
        "import os, signal, sys; from pathlib import Path; import torch\n"
        "from lib.artifact.tensors import save_tensors\n"
        "os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_tensors(Path(sys.argv[1]), {'a': torch.ones(9)}, {})\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, path])
    assert killed.returncode == -signal.SIGKILL
    assert len(left := list(tmp_path.iterdir())) == 1, left
    save_tensors(path, {"a": torch.zeros(9)}, {})
    assert list(tmp_path.iterdir()) == [path]
    assert read_tensor_metadata(path) == {}
