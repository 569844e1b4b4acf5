"""Versions are whole or absent."""

import errno
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import THRESHOLDS
from exported import client_rows, scatter, small_network

from keras_trgl.export import Inputs, Outputs, ServerFiles, export_exit, export_serving
from keras_trgl.export.publish import (
    HIDDEN,
    base_folder,
    check_version,
    versions,
    written_version,
)

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    return scatter(small_network())


def test_the_next_version_follows_the_largest_folder_a_server_sees(tmp_path):
    for name in ("2", "00007", "9.old", ".writing-12", "x3", "-5"):
        (tmp_path / name).mkdir()
    (tmp_path / "30").write_text("")
    assert set(versions(tmp_path)) == {2, 7}
    assert check_version(tmp_path, None) == 8
    with pytest.raises(FileExistsError, match="version=7"):
        check_version(tmp_path, 7)


@pytest.mark.parametrize("version", [2**63, 10**30])
def test_a_version_is_an_int64(tmp_path, version):
    with pytest.raises(ValueError, match=rf"at most {2**63 - 1}.*Received: version={version}, "):
        check_version(tmp_path, version)
    assert check_version(tmp_path, 2**63 - 1) == 2**63 - 1


def test_after_the_largest_version_there_is_no_next_one(tmp_path):
    (tmp_path / str(2**63)).mkdir()
    assert check_version(tmp_path, None) == 1, "No server sees that folder."
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(
        ValueError, match=f"Received: version=None, with {2**63 - 1} as the largest"
    ):
        check_version(tmp_path, None)


def test_a_version_is_readable_by_others_and_all_of_it_appears_at_once(tmp_path):
    with written_version(tmp_path, 1) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "file").write_text("x")
        (aside / "inner" / "file").chmod(0o600)
        assert versions(tmp_path) == {}
    assert versions(tmp_path) == {1: tmp_path / "1"}
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "1" / "inner" / "file").stat().st_mode & 0o777 == 0o644


def test_a_version_that_appears_meanwhile_is_kept(tmp_path):
    def write():
        with written_version(tmp_path, 1) as aside:
            (aside / "mine").write_text("")
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "theirs").write_text("")

    with pytest.raises(FileExistsError, match=r"appeared in .* and is kept"):
        write()
    assert [path.name for path in tmp_path.rglob("*")] == ["1", "theirs"]


def test_what_a_dead_process_left_is_removed_and_a_living_one_s_is_not(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    left = tmp_path / f"{HIDDEN}3-{host}-{dead.pid}-abc"
    living = tmp_path / f"{HIDDEN}3-{host}-{os.getpid()}-abc"
    elsewhere = tmp_path / f"{HIDDEN}3-other.{host}x-{dead.pid}-abc"
    for folder in (left, living, elsewhere):
        folder.mkdir()
    base_folder(tmp_path)
    assert not left.exists()
    assert living.exists()
    assert elsewhere.exists()


DISK_ERRORS = {
    "system": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "tensorflow": tf.errors.ResourceExhaustedError(None, None, "a/b; No space left on device"),
}


@pytest.mark.parametrize("kind", DISK_ERRORS)
def test_a_full_disk_is_told_in_words_and_leaves_the_old_version(tmp_path, kind):
    (tmp_path / "1").mkdir()

    def write():
        with written_version(tmp_path, 2) as aside:
            (aside / "half").write_text("")
            raise DISK_ERRORS[kind]

    with pytest.raises(OSError, match="The disk is full: nothing was published") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 40 kB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("There is no `mount` here.")
    if done.returncode:
        pytest.skip(f"No small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_an_export_to_a_full_disk_leaves_no_version(model, small_disk):
    with pytest.raises(OSError, match="The disk is full"):
        export_serving(model, small_disk / "base")
    assert list((small_disk / "base").iterdir()) == []


def test_a_failure_before_publication_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("the weights differ")

    first = export_exit(model, 1, tmp_path)
    kept = (tmp_path / "models.config").read_text()
    monkeypatch.setattr("keras_trgl.export.serving.check_numbers", fail)
    with pytest.raises(RuntimeError, match="the weights differ"):
        export_exit(model, 1, tmp_path, files=ServerFiles(model_name="other"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "models.config"]
    assert (tmp_path / "models.config").read_text() == kept
    assert first.path.is_dir()


def test_the_model_config_names_path_and_labels(model, tmp_path):
    base = tmp_path / "net"
    export_exit(model, 1, base)
    text = (base / "models.config").read_text()
    assert 'name: "net"' in text
    assert 'base_path: "/models/net"' in text
    assert "version_labels" not in text
    files = ServerFiles(model_name="b.c", base_path="/srv/b", labels={"stable": 1, "canary": 2})
    export_exit(model, 1, base, files=files)
    text = (base / "models.config").read_text()
    assert 'name: "b.c"' in text
    assert "versions: 1\n        versions: 2\n" in text
    assert text.count("{") == text.count("}") == 6
    assert 'key: "canary"\n      value: 2' in text


def test_the_model_config_is_what_the_server_parses(model, tmp_path):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    from google.protobuf import text_format

    files = ServerFiles(labels={"stable": 1})
    export_exit(model, 1, tmp_path / "net", files=files)
    text = (tmp_path / "net" / "models.config").read_text()
    parsed = text_format.Parse(text, config.ModelServerConfig()).model_config_list.config[0]
    assert parsed.name == "net"
    assert dict(parsed.version_labels) == {"stable": 1}
    assert list(parsed.model_version_policy.specific.versions) == [1]


def test_warm_up_requests_cover_every_signature_and_size(model, tmp_path):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    done = export_serving(
        model,
        tmp_path / "net",
        inputs=Inputs("uint8", lambda x: x / 255.0, encoded=True),
        outputs=Outputs(thresholds=THRESHOLDS),
        files=ServerFiles(warmup=(1, 3)),
    )
    path = done.path / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert len(records) == done.warmup_requests == 2 * len(done.signatures)
    seen = set()
    for record in records:
        request = logs.PredictionLog.FromString(record).predict_log.request
        assert request.model_spec.name == "net"
        (tensor,) = request.inputs.values()
        seen.add((request.model_spec.signature_name, tensor.tensor_shape.dim[0].size))
    assert seen == {(name, size) for name in done.signatures for size in (1, 3)}


def test_the_report_says_what_was_published(report):
    text = str(report)
    assert f"{report.numbers:,} numbers" in text
    assert "confident_exit" in text
    assert report.max_difference <= 1e-5
    assert report.bytes == sum(p.stat().st_size for p in report.path.rglob("*") if p.is_file())
    rows = client_rows(1)
    assert tf.saved_model.load(str(report.path)).signatures["exit_1"](inputs=rows)


@pytest.mark.long
def test_a_poller_meets_whole_versions_alone_though_exporters_are_killed():
    command = [sys.executable, "tests/export/rollout.py", "--exports=3", "--kills=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
