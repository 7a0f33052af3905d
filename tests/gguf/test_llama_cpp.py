"""The real llama.cpp through its shared library, on files that the tests write."""

from pathlib import Path

import numpy as np
import pytest

from lib.errors import MakegptError
from lib.gguf.llama_cpp import HOW_TO_INSTALL, llama_cpp_folder, llama_cpp_version, load_in_llama_cpp
from tests.gguf.test_gguf import T, random_tensors, reference_logits, write

FOLDER = llama_cpp_folder() or Path()
needs_llama_cpp = pytest.mark.skipif(llama_cpp_folder() is None, reason=f"llama.cpp is not installed: {HOW_TO_INSTALL}")


@needs_llama_cpp
@pytest.mark.parametrize("at_once", [1, 4, 8])
def test_its_logits_equal_the_reference_in_one_batch_and_one_by_one(tmp_path: Path, at_once: int) -> None:
    path = write(tmp_path / "a.gguf", random_tensors())
    ids = [5, 6, 7, 8, 9, 100, 3, 3]
    with load_in_llama_cpp(FOLDER, path, T) as model:
        np.testing.assert_allclose(model.logits(ids, at_once), reference_logits(path, ids), atol=1e-4)


@needs_llama_cpp
def test_its_reason_for_refusing_a_file_is_in_the_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", random_tensors(), keys={"block_count": 3})
    with (
        pytest.raises(MakegptError, match=r"llama\.cpp refuses .*blk\.2\.attn_norm\.weight"),
        load_in_llama_cpp(FOLDER, path, T),
    ):
        pass


def test_a_folder_without_a_library_is_refused_with_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match="make llama-cpp"):
        llama_cpp_version(tmp_path)
