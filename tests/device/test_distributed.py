"""Training with several processes: started by torchrun as a user would, or forked with the variables that torchrun sets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from lib.artifact.tensors import load_tensors
from lib.run.folder import MODEL_FILE
from lib.run.metrics import read_metrics
from lib.run.state import CHECKPOINT_FOLDER, STATE_FILE, read_state
from lib.train.run_folder import RunFolder
from tests import forks
from tests.conftest import BIN, PROJECT, Stage

STEPS = ["--set", "train.max_steps=75", "--set", "train.eval_interval=25", "--set", "train.batch_size=5"]


def torchrun(size: int, dataset: Path, folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", str(size), "-m", "stages.train", str(dataset)]
    command += ["-o", str(folder), "--config", "debug", *STEPS, *words]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def environments(size: int) -> list[dict[str, str]]:
    """The environment that torchrun sets for each of `size` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def train_forked(size: int, dataset: Path, folder: Path, *words: str) -> list[tuple[int, str]]:
    """Train with `size` processes, forked so that none loads torch again; their exit codes and stderr."""
    command = ["train", str(dataset), "-o", str(folder), "--config", "debug", *STEPS, *words]
    processes = [forks.shared().start(command, env=env | {"OMP_NUM_THREADS": "1"}) for env in environments(size)]
    return [(process.wait(120), process.outputs()[1]) for process in processes]


def workers(folder: Path) -> dict[int, int]:
    """Process ids of a training's workers by rank."""
    pids = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
                variables = (entry / "environ").read_text().split("\0")
            except OSError:  # it has just ended, or is not ours
                continue
            ranks = [variable[5:] for variable in variables if variable.startswith("RANK=")]
            if str(folder) in words and ranks:
                pids[int(ranks[0])] = int(entry.name)
    return pids


def wait_for(process: "subprocess.Popen[str]", has_come: Callable[[], bool]) -> None:
    while not has_come():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def pid_at_first_checkpoint(process: "subprocess.Popen[str]", folder: Path, rank: int) -> int:
    """The process id of a rank, returned right after the first checkpoint: a fast training ends soon after that."""
    wait_for(process, lambda: rank in workers(folder))
    pid = workers(folder)[rank]
    wait_for(process, (folder / CHECKPOINT_FOLDER / STATE_FILE).exists)
    return pid


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for the workers in /proc")
def test_two_processes_one_killed_then_three_give_the_result_of_one(small: Path, tmp_path: Path, stage: Stage) -> None:
    stage("train", small / "dataset", "-o", tmp_path / "single", "--config", "debug", *STEPS)
    folder = tmp_path / "distributed"

    two = torchrun(2, small / "dataset", folder)
    os.kill(pid_at_first_checkpoint(two, folder, 1), signal.SIGKILL)
    stderr = two.communicate(timeout=120)[1]
    assert two.returncode != 0
    assert "error: another process of this training has ended" in stderr
    assert not (folder / MODEL_FILE).exists()

    three = train_forked(3, small / "dataset", folder)
    assert [code for code, _ in three] == [0, 0, 0], three
    stderr = three[0][1]
    assert [others for _, others in three[1:]] == ["", ""], "only the main process prints messages"
    assert stderr.count("resuming after step") == 1
    assert "done by 2 processes, not by 3 processes" in stderr

    single, distributed = (load_tensors(path / MODEL_FILE) for path in (tmp_path / "single", folder))
    assert single[0].keys() == distributed[0].keys()
    assert single[1].keys() == distributed[1].keys()
    curves = [[line.train_loss or line.val_loss for line in read_metrics(path)] for path in (tmp_path / "single", folder)]
    assert curves[0][:40] == pytest.approx(curves[1][:40], rel=1e-3)
    assert curves[0][-1] == pytest.approx(curves[1][-1], rel=0.05)
    assert len(curves[0]) == len(curves[1]) == 76
    assert json.loads((folder / CHECKPOINT_FOLDER / STATE_FILE).read_text())["processes"] == 3


def test_a_time_limit_stops_all_processes_with_a_checkpoint(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["--set", "train.max_steps=100000", "--stop-after", "1s"]
    (code, stderr), (other_code, other_stderr) = train_forked(2, small / "dataset", folder, *words)
    assert (code, other_code) == (0, 0), stderr + other_stderr
    assert stderr.count("the same command resumes") == 1
    assert other_stderr == ""
    state = read_state(folder)
    assert state is not None
    assert f"stopped after step {state.step};" in stderr


EXIT_SCRIPT = """
import os, pathlib, torch
from lib.device.distributed import init_distributed
with init_distributed(torch.device("cpu")) as group:
    import torch._dynamo  # as an optimizer does in its first step
    group.barrier()
threads = [(path / "comm").read_text().strip() for path in pathlib.Path("/proc/self/task").iterdir()]
assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the threads in /proc")
def test_no_thread_outlives_the_process_group() -> None:
    """Such a thread may call the interpreter after its end and abort the process, once in some hundred times."""
    command = [sys.executable, "-c", EXIT_SCRIPT]
    processes = [
        subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True)
        for environment in environments(2)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr


def test_an_error_of_the_main_process_ends_the_others_too(small: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        (code, stderr), (other_code, _) = train_forked(2, small / "dataset", tmp_path / "run")
    assert code != 0
    assert other_code != 0
    assert "is being trained by another `train`" in stderr
