"""Measurements in processes of their own."""

import json
import subprocess
import sys


def in_fresh_process(script, **flags):
    """Run a script with these flags, and give the JSON that it prints on its last line."""
    told = [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run([sys.executable, script, *told], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(told)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
