"""Bars and lines of what takes a while: shown when asked for, and nothing else."""

import keras
import pytest
from absl import logging

from keras_trgl import progress
from keras_trgl.progress import Progress, tell


@pytest.mark.parametrize(
    ("verbose", "seconds", "shows"),
    [(0, 9, False), (1, 0, True), (2, 0, True), ("auto", 0, False), ("auto", 9, True)],
)
def test_progress_is_shown_once_it_takes_a_while(verbose, seconds, shows, capsys):
    times = iter([0.0, seconds, seconds, seconds])
    done = Progress(3, verbose, clock=lambda: next(times))
    assert list(done.of("abc")) == ["a", "b", "c"]
    assert ("3/3" in capsys.readouterr().out) == shows


def test_progress_takes_the_words_of_keras():
    with pytest.raises(ValueError, match="verbose"):
        Progress(3, "loud")


def test_a_total_may_be_known_late(capsys):
    done = Progress(1, 1, "part")
    done.total = 4
    done()
    done(3)
    text = capsys.readouterr().out
    assert "1/4" in text
    assert "4/4" in text
    assert "/part" in text


def test_a_line_goes_where_keras_shows_its_bars(capsys, monkeypatch):
    logged = []
    monkeypatch.setattr(logging, "info", logged.append)
    tell("it is done")
    keras.config.disable_interactive_logging()
    try:
        tell("it is logged")
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == "it is done\n"
    assert logged == ["it is logged"]
    assert progress.QUIET_SECONDS > 0
