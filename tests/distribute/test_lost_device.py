"""How a lost device is found, with devices of this process that do not answer on demand."""

import socket
import threading
import time

import pytest
import tensorflow as tf

from keras_trgl.distribute import lost_device
from keras_trgl.distribute.lost_device import Watch, _Lost, refusing, silent

DEVICES = ["first", "second"]


@pytest.fixture
def mute(monkeypatch):
    """Lets chosen devices fail or stay silent."""
    state = {"fails": set(), "hangs": set(), "end": threading.Event()}

    def ask(device):
        if device in state["hangs"]:
            state["end"].wait(30)
        if device in state["fails"]:
            raise tf.errors.UnavailableError(None, None, "gone")

    monkeypatch.setattr(lost_device, "ask", ask)
    yield state
    state["end"].set()


def watch(timeout=2.0, addresses=None):
    return Watch(DEVICES, timeout, (addresses or {}).get)


def fail():
    raise tf.errors.UnavailableError(None, None, "socket closed")


def test_a_result_passes_and_so_does_an_error_of_its_own(mute):
    assert watch().call(lambda a, b: (a, b), 1, b=2) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        watch().call(lambda: 1 / 0)
    with pytest.raises(tf.errors.UnavailableError):
        watch().call(fail)


def test_a_device_that_fails_is_lost_and_every_later_call_fails_at_once(mute):
    mute["fails"] = {"second"}
    one = watch()
    with pytest.raises(_Lost) as lost:
        one.call(fail)
    assert one.lost == ["second"]
    assert isinstance(lost.value.__cause__, tf.errors.UnavailableError)
    with pytest.raises(_Lost):
        one.call(lambda: pytest.fail("It must not be called."))


def test_a_device_that_is_silent_is_lost_within_the_timeout(mute):
    mute["hangs"], one, began = {"first"}, watch(timeout=1.5), time.monotonic()
    with pytest.raises(_Lost):
        one.call(mute["end"].wait, 30)
    assert one.lost == ["first"]
    assert time.monotonic() - began < 3.0


def test_a_long_call_is_waited_for_while_devices_answer(mute):
    assert watch(timeout=1.1).call(lambda: time.sleep(1.5) or "done") == "done"


def test_a_closed_port_tells_who_is_gone(mute):
    mute["fails"] = set(DEVICES)
    with socket.create_server(("127.0.0.1", 0)) as there, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"first": there.getsockname()[1], "second": closed.getsockname()[1]}
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        one = watch(addresses=addresses)
        with pytest.raises(_Lost):
            one.call(fail)
        assert one.lost == ["second"]
        assert refusing(DEVICES, {}.get) == []


def test_calls_within_a_call_make_no_thread_of_their_own(mute):
    one = watch()
    assert one.call(lambda: one.call(threading.get_ident) == threading.get_ident())


def test_an_interrupt_asks_the_model_to_stop_and_waits_for_it(mute, monkeypatch):
    class Model:
        stop_training = False

        def fit(self):
            while not self.stop_training:
                time.sleep(0.01)
            self.ended = True

    model, one, waits = Model(), watch(), []
    wait = one._wait

    def interrupted(box):
        waits.append(box)
        if len(waits) == 1:
            raise KeyboardInterrupt
        return wait(box)

    monkeypatch.setattr(one, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.call(Model.fit, model)
    assert model.ended


def test_an_error_that_is_reported_once_more_does_not_lose_a_device(monkeypatch):
    errors = iter([tf.errors.UnavailableError(None, None, "of another")] * 3)

    def add(*_):
        error = next(errors, None)
        if error is not None:
            raise error
        return tf.constant(2.0)

    monkeypatch.setattr(lost_device.tf, "add", add)
    assert silent(["/device:CPU:0"], 5.0) == []
