"""Exports and the choice of an exit show how far they are, and nothing where that is not wanted."""

import exported
import numpy as np
import pytest

from keras_trgl.export import Calibration, choose_exit, export_exit, export_litert

X, Y = np.zeros((40, *exported.SHAPE), "float32"), np.zeros(40, int)

WORK = {
    # 2 batches of rows, 3 depths traced, 4 turns.
    "choice": (
        lambda model, folder, verbose: choose_exit(
            model, (X, Y), max_drop=1.0, calibration=Calibration(repeats=4), verbose=verbose
        ),
        "9/9",
        "/step",
    ),
    # Tracing, writing, loading, two signatures.
    "exit": (
        lambda model, folder, verbose: export_exit(model, 1, folder, verbose=verbose),
        "5/5",
        "/part",
    ),
    "file": (
        lambda model, folder, verbose: export_litert(
            model, 1, folder / "a.tflite", check=False, verbose=verbose
        ),
        "2/2",
        "/part",
    ),
}


@pytest.mark.parametrize("what", WORK)
def test_progress_is_shown_to_its_end(what, model, tmp_path, capsys):
    work, end, unit = WORK[what]
    work(model, tmp_path, 2)
    text = capsys.readouterr().out
    assert text.startswith(end)
    assert unit in text
    assert len(text.splitlines()) == 1


def test_nothing_is_shown_where_it_is_not_wanted(model, tmp_path, capsys):
    export_exit(model, 1, tmp_path, verbose=0)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="`verbose` must be one of"):
        export_exit(model, 1, tmp_path, verbose="loud")
