"""Training that is killed at random moments ends bit for bit as if it had not been."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("kill.py")


@pytest.mark.slow
def test_killed_runs_end_as_the_unbroken_one_bit_for_bit():
    command = [sys.executable, str(SCRIPT), "--kills=2", "--regimes=parallel,sequential"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report) == {"parallel", "sequential"}
    for row in report.values():
        assert row["bit_exact"] == row["kills"] >= 2
        assert row["inside_save"] >= 1
        assert 0 <= row["lost_steps_max"] <= row["save_freq"]
