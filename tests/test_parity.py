"""The recorded run of the published code, trained again by the parity benchmark."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
RECORDING = ROOT / "tests" / "golden" / "trgl_parallel.npz"


@pytest.mark.slow
def test_the_published_code_is_matched_to_1e_9():
    done = subprocess.run(
        [sys.executable, "benchmarks/parity/run.py", str(RECORDING), "--json"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors["max_loss_error"] <= 1e-9
    assert errors["max_weight_error"] <= 1e-9
