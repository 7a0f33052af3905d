"""How OpenMP's threads should wait: seconds a step by how long they spin before they sleep, at rest and with one core busy.

python bench/threads.py [CONFIG...]
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BUSY = "while True: pass"
SPINS = ("0", "1000", "10000", "300000")  # GOMP_SPINCOUNT: sleep at once, …, ours, GNU OpenMP's own default
STEPS = 5


def seconds(config: str, spins: str) -> float:
    command = [sys.executable, str(Path(__file__).with_name("contender.py")), "ours", config]
    settings = {"env": os.environ | {"GOMP_SPINCOUNT": spins}, "capture_output": True, "text": True, "check": True}
    done = subprocess.run(command, input=f"{STEPS}\n" * 3, **settings)
    return statistics.median(json.loads(line)["seconds"] for line in done.stdout.splitlines())


for busy in (False, True):
    neighbor = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        for config in sys.argv[1:] or ["gpt_balanced", "decoder"]:
            found = {spins: seconds(config, spins) for spins in SPINS}
            told = ", ".join(f"{spins} spins {taken * 1e3:,.0f} ms" for spins, taken in found.items())
            print(f"{config} {'with one core busy' if busy else 'at rest'}: {told}", flush=True)
    finally:
        if neighbor:
            neighbor.kill()
