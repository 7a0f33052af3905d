"""Progress on stderr: a bar on a terminal, lines elsewhere, nothing with --quiet."""

import io
import sys

import click
import pytest

from stages.shared import progress as module
from stages.shared.progress import format_duration, progress
from stages.shared.streams import set_quiet

CLEAR = "\r\033[K"


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: type[io.TextIOWrapper], encoding: str = "utf-8", quiet: bool = False) -> str:
    """What a task of four steps with a note after the second prints to stderr."""
    stderr = stream(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(module, "_REDRAW_INTERVAL", 0)
    with click.Context(click.Command("task")):
        if quiet:
            set_quiet()
        with progress(4, "steps") as bar:
            for step in range(4):
                bar.advance(1)
                if step == 1:
                    bar.note("half")
    stderr.flush()
    return stderr.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_shows_one_line_with_a_bar_and_notes_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, Terminal).split(CLEAR)
    assert lines[0] == ""
    assert lines[1].startswith("████░░░░░░░░░░░░ 1/4 steps (25%) | eta 0:0")
    assert lines[3] == "half\n"
    assert lines[-2] == "████████████████ 4/4 steps (100%) | eta 0:00"
    assert lines[-1] == "", "the bar is cleared at the end"
    assert all("\n" not in line for line in lines if line != "half\n")


def test_a_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "columns", lambda _: 20)
    assert max(map(len, shown(monkeypatch, Terminal).split(CLEAR))) == 19


def test_a_terminal_without_unicode_gets_an_ascii_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "########-------- 2/4 steps" in shown(monkeypatch, Terminal, encoding="ascii")


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_terminal_without_escape_sequences_gets_only_lines(quiet: bool, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    stream = io.TextIOWrapper if term == "xterm" else Terminal
    assert shown(monkeypatch, stream, quiet=quiet) == ("" if quiet else "half\n")


def test_lines_are_printed_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LINE_INTERVAL", 0)
    lines = shown(monkeypatch, io.TextIOWrapper).splitlines()
    assert [line.split(" | ")[0] for line in lines] == [
        "1/4 steps (25%)", "2/4 steps (50%)", "half", "3/4 steps (75%)", "4/4 steps (100%)",
    ]  # fmt: skip


def test_quiet_shows_nothing_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, Terminal, quiet=True) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (36_061, "10:01:01")]
)
def test_durations_are_formatted_as_clock_times(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
