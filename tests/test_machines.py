"""`make test-machines`: the settings are those of another processor, and all that computes runs under them."""

import os
import subprocess
import sys

import pytest

from tests import machines

BITS = """
import hashlib, math, numpy, torch
draw = torch.Generator().manual_seed(1)
x = torch.randn(64, 64, generator=draw)
y = numpy.random.default_rng(1).normal(size=(64, 64))
found = {
    "torch": x.softmax(-1), "mkl": x @ x, "numpy": numpy.exp(y.astype(numpy.float32)), "openblas": y @ y,
    "libm": numpy.array([math.exp(n * 0.00137) for n in range(1, 20000)]),
}
for name, numbers in found.items():
    print(name, hashlib.sha256(numpy.ascontiguousarray(numbers).tobytes()).hexdigest())
"""


@pytest.mark.skipif(not machines.processor_has("avx2"), reason="this processor has only one implementation")
def test_the_oldest_processor_gives_other_last_bits_in_every_library() -> None:
    of_setting = {}
    for name in ("torch-avx2", "oldest"):
        environment = os.environ | machines.settings()[name]
        done = subprocess.run([sys.executable, "-c", BITS], env=environment, capture_output=True, text=True, check=True)
        of_setting[name] = dict(line.split() for line in done.stdout.splitlines())
    new, old = of_setting.values()
    assert {library for library in new if new[library] != old[library]} == {"torch", "mkl", "numpy", "openblas", "libm"}


def test_all_tests_that_compute_are_run() -> None:
    names = {path.stem for path in machines.computing()}
    assert {"test_docs", "test_study", "test_reproduce", "test_formulas", "test_loop", "test_engine"} <= names
    assert names >= {f"test_{name}" for name in machines.COMMITTED}


def test_an_unsupported_setting_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machines, "processor_has", lambda flag: False)
    assert machines.main(["openblas-skylakex"]) == 0
    assert capsys.readouterr().out == "skipped  openblas-skylakex  needs a processor with AVX-512\n"
    assert machines.main(["skylake"]) == 2
    assert "no setting is called skylake; there are unset, " in capsys.readouterr().err
