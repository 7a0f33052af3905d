"""Event files of TensorBoard: each number of metrics.jsonl once, framed as TensorBoard reads them."""

import json
import struct
from pathlib import Path
from typing import Any, Iterator

import pytest

from lib.report.tensorboard import EVENTS_FILE
from lib.run.metrics import METRICS_FILE, TIMINGS_FILE
from tests.conftest import Here

pytest.importorskip("tensorboardX", reason="tensorboardX is missing; `make setup EXTRAS=dev,tensorboard`")


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, the bytes, their checksum (a CRC-32C, rotated and moved)."""
    from tensorboardX.crc32c import crc32c

    def checked(data: bytes, masked: int) -> None:
        crc = crc32c(data)
        assert ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == masked

    content = path.read_bytes()
    while content:
        length, masked = struct.unpack("<QI", content[:12])
        checked(content[:8], masked)
        record = content[12 : 12 + length]
        checked(record, struct.unpack("<I", content[12 + length : 16 + length])[0])
        yield record
        content = content[16 + length :]


def events(folder: Path) -> list[Any]:
    from tensorboardX.proto.event_pb2 import Event

    return [Event.FromString(record) for record in records(folder / EVENTS_FILE)]


def numbers(folder: Path) -> dict[tuple[str, int], float]:
    points = [(value.tag, event.step, value.simple_value) for event in events(folder) for value in event.summary.value]
    assert len({point[:2] for point in points}) == len(points), "a step is there twice"
    return {(tag, step): value for tag, step, value in points}


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]


def test_every_number_of_the_metrics_is_there_once(small: Path, here: Here, tmp_path: Path) -> None:
    assert "points" in here("report", small / "run", "--to", "tensorboard", "-o", tmp_path / "board").err
    seen = numbers(tmp_path / "board" / "run")
    for line in lines(small / "run", METRICS_FILE):
        for tag, name in (("train/loss", "train_loss"), ("val/loss", "val_loss"), ("train/lr", "lr")):
            if line[name] is None:
                assert (tag, line["step"]) not in seen
            else:
                assert seen[tag, line["step"]] == pytest.approx(line[name], rel=1e-6)
    for line in lines(small / "run", TIMINGS_FILE):
        assert seen["speed/tokens_per_second", line["step"]] == pytest.approx(line["tokens_per_second"], rel=1e-6)


def test_time_runs_forward_from_the_start_of_the_training(small: Path, here: Here, tmp_path: Path) -> None:
    here("report", small / "run", "--to", "tensorboard", "-o", tmp_path / "board")
    times = [event.wall_time for event in events(tmp_path / "board" / "run")]
    assert times == sorted(times)
    seconds = sum(line["seconds"] for line in lines(small / "run", TIMINGS_FILE))
    assert times[-1] - times[0] == pytest.approx(seconds, abs=1e-3)


def test_writing_again_gives_the_same_bytes_and_no_second_file(small: Path, here: Here, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        here("report", small / "run", "--to", "tensorboard", "-o", tmp_path / "board")
        written.append((tmp_path / "board" / "run" / EVENTS_FILE).read_bytes())
    assert written[0] == written[1]
    assert [path.name for path in (tmp_path / "board" / "run").iterdir()] == [EVENTS_FILE]


def test_runs_of_one_name_and_stdout_are_refused(small: Path, here: Here, tmp_path: Path) -> None:
    run = small / "run"
    assert "same name" in here("report", run, run, "--to", "tensorboard", "-o", tmp_path / "board", code=2).err
    assert "name one with -o" in here("report", run, "--to", "tensorboard", "-o", "-", code=2).err
