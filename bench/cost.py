"""How near `train --plan` comes: estimated beside measured seconds a step and bytes of memory, each config in its own process.

python bench/cost.py [CONFIG...]
"""

import json
import subprocess
import sys
from pathlib import Path

print(f"{'config':14}{'s/step':>10}{'estimated':>11}{'ratio':>7}{'MB':>8}{'estimated':>11}{'ratio':>7}")
for name in sys.argv[1:] or ["gpt_balanced", "gpt_deep", "gpt_demo"]:
    command = [sys.executable, str(Path(__file__).with_name("step.py")), name]
    row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    seconds, memory = row["estimated_seconds"] / row["seconds"], row["estimated_memory"] / row["memory"]
    print(f"{name:14}{row['seconds']:10.3f}{row['estimated_seconds']:11.3f}{seconds:7.2f}", end="")
    print(f"{row['memory'] / 1e6:8.0f}{row['estimated_memory'] / 1e6:11.0f}{memory:7.2f}")
