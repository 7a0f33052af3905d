"""The tests that compute, as other processors would compute them: `make test-machines`.

Libraries choose the routine of a product, a sum or a logarithm by the features of the processor, and each has a variable
to choose another. Every setting is a separate pytest, one after the other; one line reports its result.

python -m tests.machines [NAME...]    these settings only; --list shows them, --short takes the tests with committed numbers
"""

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

#: Tests of the numbers and figures in the project's own files, without those that train or start a process first.
COMMITTED = ("docs", "reproduce", "study")
SHORT = "prints_what_the_page_shows or published_value_passes or committed"

#: Commands of the kernel's compiler for processors without AVX-512 and with none of AVX.
NO_AVX512, NO_AVX = "c++ -mno-avx512f", "c++ -mno-avx -mno-avx2 -mno-fma"


def computing() -> list[Path]:
    """The test files that compute: all that import a numeric library, and those of `COMMITTED`."""
    takes = re.compile(r"^(?:import|from) (?:torch|numpy|matplotlib)\b", re.MULTILINE)
    paths = sorted((PROJECT / "tests").rglob("test_*.py"))
    return [path for path in paths if path.stem[5:] in COMMITTED or takes.search(path.read_text(encoding="utf-8"))]


def numpy_features() -> str:
    """The optional processor features that numpy uses here."""
    try:
        from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
    except ImportError:
        return ""
    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name))


def processor_has(flag: str) -> bool:
    """Whether Linux lists `flag` among the features of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and flag in cpuinfo.read_text(encoding="utf-8", errors="replace").split()


def settings() -> dict[str, dict[str, str]]:
    """Name -> environment. The last combines the oldest of all, and differs most from a new processor."""
    plain = {"ATEN_CPU_CAPABILITY": "default"}
    numpy = {"NPY_DISABLE_CPU_FEATURES": numpy_features()}
    libm = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable"}  # newer names and older ones
    mkl = {"MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    found = {
        "unset": {},
        "torch-default": plain,
        "torch-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
        "numpy-plain": numpy,
        "openblas-haswell": {"OPENBLAS_CORETYPE": "Haswell"},
        "openblas-zen": {"OPENBLAS_CORETYPE": "Zen"},
        "openblas-skylakex": {"OPENBLAS_CORETYPE": "SkylakeX"},
        "libm-plain": libm,
        "mkl-plain": mkl,
        "kernel-avx2": {"CXX": NO_AVX512},
        "kernel-plain": {"CXX": NO_AVX},
        "threads-1": {"OMP_NUM_THREADS": "1"},
        "threads-2": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"},  # two workers of two threads: none may spin
        "oldest": plain | numpy | libm | mkl | {"OPENBLAS_CORETYPE": "Nehalem", "CXX": NO_AVX, "OMP_NUM_THREADS": "1"},
    }
    if platform.machine() not in ("x86_64", "AMD64"):  # these names are of x86 processors
        found = {name: chosen for name, chosen in found.items() if name in ("unset", "torch-default", "threads-1", "threads-2")}
    return found


def cannot(chosen: dict[str, str]) -> str | None:
    """Why this machine cannot run a setting; None if it can."""
    if chosen.get("OPENBLAS_CORETYPE") == "SkylakeX" and not processor_has("avx512f"):
        return "needs a processor with AVX-512"  # OpenBLAS does not look: the process would end by SIGILL
    if chosen.get("NPY_DISABLE_CPU_FEATURES") == "":
        return "numpy uses nothing here that it can do without"
    return None


def run(chosen: dict[str, str], short: bool) -> "subprocess.CompletedProcess[str]":
    """The tests that compute, or the short form of them, under a setting, two at a time."""
    ours = {name for each in settings().values() for name in each}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    paths = [path for path in computing() if not short or path.stem[5:] in COMMITTED]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider", *map(str, paths)]
    command += ["-k", SHORT] if short else []
    return subprocess.run(command, cwd=PROJECT, env=environment | chosen, capture_output=True, text=True)


def main(words: list[str]) -> int:
    """Run the settings named in `words`, or all; 1 if one of them fails."""
    short, known = "--short" in words, settings()
    names = [word for word in words if not word.startswith("--")] or list(known)
    if unknown := [name for name in names if name not in known]:
        print(f"no setting is called {unknown[0]}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if "--list" in words:
        for name in names:
            print(f"{name:18} {' '.join(f'{key}={value!r}' for key, value in known[name].items())}")
        return 0
    failed = 0
    for name in names:
        if reason := cannot(known[name]):
            print(f"skipped  {name:18} {reason}", flush=True)
            continue
        began = time.monotonic()
        done = run(known[name], short)
        last = (done.stdout.strip().splitlines() or [done.stderr.strip()])[-1]
        print(f"{'failed' if done.returncode else 'passed':8} {name:18} {last} ({time.monotonic() - began:.0f} s)", flush=True)
        if done.returncode:
            failed += 1
            print(done.stdout, done.stderr, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
