"""A killed and a frozen worker are named, and the run goes on to the same bits."""

import json
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("workers.py")


@pytest.mark.long
@pytest.mark.multi_device
def test_lost_workers_are_named_and_the_run_goes_on_bit_for_bit():
    command = [sys.executable, str(SCRIPT), "--kills=1", "--stops=1", "--limit=2"]
    # Trials run with one step per execution anyway.
    command += ["--steps=4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report.pop("without_fault_bit_exact")
    assert {kind: row["trials"] for kind, row in report.items()} == {"kill": 1, "stop": 1}
    for row in report.values():
        assert row["named"] == row["bit_exact"] == row["trials"]
