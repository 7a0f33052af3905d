"""Every reader, on damaged and hostile files: one line that names the file, or a result; no traceback, hang or flood.

FUZZ_INPUTS and FUZZ_SEED choose how many inputs there are and which. An input that fails is told by its reader and number:
FUZZ_ONLY=READER:NUMBER tries that one alone.
"""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lib.errors import MakegptError, one_line
from tests.fuzz import material
from tests.fuzz.readers import READERS, Damager, Reader

INPUTS = int(os.environ.get("FUZZ_INPUTS", "20000"))
SEED = os.environ.get("FUZZ_SEED", "13")
ONLY = os.environ.get("FUZZ_ONLY")

SECONDS = 10
MEMORY = 1 << 30  # bytes beyond what the process has
LONGEST = 1100  # characters of a message


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that is read, undamaged."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, open(os.devnull, "w") as nowhere:
        patch.setattr("sys.stderr", nowhere)
        material.make(folder, _stage)
    return folder


def _stage(name: str, *words: Any) -> None:
    from importlib import import_module

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        import_module(f"stages.{name.replace('-', '_')}").main([*map(str, words), "--debug"])
    signal.signal(signal.SIGTERM, before)
    assert left.value.code == 0, name


@contextmanager
def bounded() -> Iterator[None]:
    """Refuse memory beyond the bound while the block runs."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    before = resource.getrlimit(resource.RLIMIT_AS)
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def problem(reader: Reader, folder: Path) -> str | None:
    """What is wrong with how `reader` takes what is in `folder`; None where nothing is, "" where it found no fault."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader.read(folder)
    except TimeoutError as error:
        return str(error)
    except MakegptError as error:
        message = str(error)
        if error.exit_code not in (1, 2) or message != one_line(message) or not 10 < len(message) < LONGEST:
            return f"the message is no line: {message[:300]!r}"
        named = str(folder), *(Path(name).name for name in reader.files), "--set", "defaults", "configs"
        if not any(name in message for name in named) and reader.name not in _NAMELESS:
            return f"the message names no file: {message[:300]!r}"
        return None
    except OSError as error:
        return None if error.filename else f"OSError without a name: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


_NAMELESS = ("ids", "--set", "params.yaml")


def share(reader: Reader) -> int:
    """How many of the inputs are for `reader`."""
    return max(1, round(INPUTS * reader.weight / sum(each.weight for each in READERS)) + 1)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_damaged_file_is_told_in_one_line(reader: Reader, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    damager = Damager(reader, whole, folder)
    wrong: dict[str, str] = {}
    tried, refused = 0, 0
    signal.signal(signal.SIGALRM, _too_long)
    with bounded():
        assert problem(reader, folder) == "", "what is whole can be read"
        for number in range(share(reader)):
            if ONLY and f"{reader.name}:{number}" != ONLY:
                continue
            damager.damage(Random(f"{SEED}:{reader.name}:{number}"))
            found = problem(reader, folder)
            tried, refused = tried + 1, refused + (found is None)
            if found:
                wrong.setdefault(found[:60], f"FUZZ_SEED={SEED} FUZZ_ONLY={reader.name!r}:{number}: {found}")
    assert not wrong, "\n".join(wrong.values())
    assert ONLY or tried == share(reader)
    assert ONLY or refused > tried / 5, "most damage is found"


def test_the_readers_have_as_many_inputs_together_as_were_asked_for() -> None:
    assert INPUTS <= sum(map(share, READERS)) <= INPUTS + 2 * len(READERS)
