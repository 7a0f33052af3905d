"""The README's curl commands, asked of a real server."""

import json
import re
import shlex
import shutil
import subprocess

import pytest

from tests.conftest import PROJECT
from tests.serve.running import Running

COMMANDS = re.findall(r"^curl .*$", (PROJECT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_readme_has_three_of_them() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_answered(server: Running, command: str) -> None:
    words = shlex.split(command.replace("http://127.0.0.1:8080", server.url))
    answer = subprocess.run([*words, "--silent"], capture_output=True, check=True, timeout=60).stdout.decode()
    if '"stream": true' in command:
        *events, done = [line.removeprefix("data: ") for line in answer.splitlines() if line]
        assert done == "[DONE]"
        assert "".join(json.loads(event)["choices"][0]["text"] for event in events)
    elif "/v1/analyze" in command:
        assert all(len(token["alternatives"]) == 3 for token in json.loads(answer)["tokens"][1:])
    else:
        assert json.loads(answer)["choices"][0]["finish_reason"] == "length"
