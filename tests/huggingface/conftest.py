"""What the tests of this room share."""

from typing import Any

import pytest


@pytest.fixture(scope="session")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: make setup EXTRAS=dev,parity")
