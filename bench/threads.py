"""How OpenMP's threads should wait: seconds a step, sleeping or spinning, with the machine at rest and with one core busy.

python bench/threads.py [CONFIG]
"""

import json
import os
import subprocess
import sys
from pathlib import Path

BUSY = "while True: pass"


def seconds(config: str, policy: str) -> float:
    command = [sys.executable, str(Path(__file__).with_name("step.py")), config]
    # GOMP_SPINCOUNT's own default, which stands where no policy is given
    environment = os.environ | ({"OMP_WAIT_POLICY": "PASSIVE"} if policy == "sleeping" else {"GOMP_SPINCOUNT": "300000"})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


config = sys.argv[1] if len(sys.argv) > 1 else "gpt_balanced"
for busy in (False, True):
    neighbour = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
    try:
        spinning, sleeping = (seconds(config, policy) for policy in ("spinning", "sleeping"))
        where = "one core busy" if busy else "at rest"
        print(
            f"{config} {where}: spinning {spinning:.3f} s, sleeping {sleeping:.3f} s, ratio {spinning / sleeping:.2f}",
            flush=True,
        )
    finally:
        if neighbour:
            neighbour.kill()
