"""Recorded runs of the published code, trained again by the parity benchmark.

One recording is given; those of other settings are made from it by a plain NumPy network, which
has to meet the given one first.
"""

import json
import pathlib
import runpy
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "parity" / "run.py"
RECORDING = ROOT / "tests" / "golden" / "trgl_parallel.npz"
record = runpy.run_path(str(ROOT / "tests" / "published_net.py"))["record"]


def given():
    with np.load(RECORDING, allow_pickle=False) as recording:
        return dict(recording)


@pytest.mark.slow
def test_the_published_code_is_matched_to_1e_9():
    command = [sys.executable, str(SCRIPT), str(RECORDING), "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors["max_loss_error"] <= 1e-9
    assert errors["max_weight_error"] <= 1e-9


def test_the_network_in_numpy_matches_the_published_code():
    wanted = given()
    made = record(wanted)
    assert set(made) == set(wanted)
    np.testing.assert_allclose(made["losses"], wanted["losses"], rtol=1e-9)
    for name in (name for name in wanted if name.startswith("final/")):
        error = np.max(np.abs(made[name] - wanted[name])) / np.max(np.abs(wanted[name]))
        assert error <= 1e-9, name


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"uza": 1, "tra": 0, "h": 1.0, "s": 2, "lambda0": 1.0},
        {"uza": 1, "tra": 0, "h": 0.1, "s": 3, "lambda0": 2.0},
        {"uza": 0, "tra": 0},
    ],
    ids=["multiplier_h1_s2", "multiplier_h0.1_s3", "no_energy"],
)
def test_recordings_of_other_settings_are_matched_to_1e_9(settings, tmp_path, load_script):
    made, plain = record(given(), **settings), given()
    # The settings count: the energy's weight is another from the first update on.
    assert np.max(np.abs(made["losses"][-1] / plain["losses"][-1] - 1)) > 1e-4
    np.savez(tmp_path / "made.npz", **made)
    keras.config.set_floatx("float64")
    with np.load(tmp_path / "made.npz", allow_pickle=False) as recording:
        errors = load_script(SCRIPT).compare(recording)
    assert errors["max_loss_error"] <= 1e-9
    assert errors["max_weight_error"] <= 1e-9
