"""Servers that the tests of a session share."""

from pathlib import Path
from typing import Iterator

import pytest

from tests.generate.test_chat import write_chat_run
from tests.serve.running import Running, running


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run called chat: random weights, a context of 96 tokens, ChatML, and the special token `<|endoftext|>`."""
    return write_chat_run(tmp_path_factory.mktemp("serve") / "chat")


@pytest.fixture(scope="session")
def server(small: Path) -> Iterator[Running]:
    """A server of the run called run: bytes as tokens, a context of 32, no template."""
    with running(small / "run") as server:
        yield server


@pytest.fixture(scope="session")
def chat_server(chat_run: Path) -> Iterator[Running]:
    """A server of the run called chat."""
    with running(chat_run) as server:
        yield server


@pytest.fixture(scope="session")
def two_models(small: Path, chat_run: Path) -> Iterator[Running]:
    """A server of both runs."""
    with running(small / "run", chat_run) as server:
        yield server
