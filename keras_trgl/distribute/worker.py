r"""A worker: a process whose devices hold stages of a model that another process trains.

Run it on every machine that lends its devices:

    python -m keras_trgl.distribute.worker --port=7000

It serves until it is stopped. TensorFlow's protocol has neither authentication nor encryption:
who reaches the port can run anything. It listens on 127.0.0.1 unless told otherwise; open it to
a private network only.
"""

import signal
import sys
import threading
from typing import Any

import tensorflow as tf
from absl import app, flags, logging

from keras_trgl.distribute.loopback import is_loopback, loopback_only, open_to_all
from keras_trgl.distribute.worker_card import show_card

LISTENS = "listening on "


def define_flags() -> None:
    """Define the flags of the command."""
    flags.DEFINE_integer("port", 0, "Port to listen on; 0 takes a free one.", 0, 65535)
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address that coordinator and other workers reach this one at. With 127.0.0.1 only this "
        "machine does; with any other, every network interface listens.",
    )
    flags.DEFINE_integer(
        "intra_op_threads",
        0,
        "Threads of one operation; 0 is one per core. Bits repeat where "
        "coordinator and workers have as many.",
        0,
    )
    flags.DEFINE_integer("inter_op_threads", 0, "Operations at once; 0 is one per core.", 0)
    flags.DEFINE_bool("until_stdin_closes", False, "Stop when standard input does.")


def serve(argv: list[str]) -> None:
    """Serve until stopped."""
    del argv
    flag = flags.FLAGS
    # The server waits in TensorFlow's own code, where Python's handler would not run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tf.config.threading.set_intra_op_parallelism_threads(flag.intra_op_threads)
    tf.config.threading.set_inter_op_parallelism_threads(flag.inter_op_threads)
    server = _started(flag.host.strip("[]"), flag.port)
    address = server.target.removeprefix("grpc://")
    sys.stdout.write(
        f"{LISTENS}{address}, TensorFlow {tf.__version__}; the protocol has no authentication\n"
    )
    sys.stdout.flush()
    if flag.until_stdin_closes:
        threading.Thread(target=server.join, daemon=True).start()
        sys.stdin.read()
    else:
        server.join()


def _started(host: str, port: int) -> Any:
    """Start a worker's server, or end the process with a sentence."""
    try:
        show_card()
        return _listen(host, port)
    except (OSError, tf.errors.OpError) as error:
        sys.exit(f"No worker was started. {error}")


def _listen(host: str, port: int) -> Any:
    """Start TensorFlow's server, once it is known who can reach it."""
    is_shut = is_loopback(host)
    with loopback_only(port) if is_shut else open_to_all(port) as taken:
        place = f"[{host}]:{taken}" if ":" in host else f"{host}:{taken}"
        cluster = tf.train.ClusterSpec({"worker": [place]})
        server = tf.distribute.Server(
            cluster, job_name="worker", task_index=0, protocol="grpc", start=False
        )
    if not is_shut:
        logging.warning(
            "This worker is open to the network. Its protocol has neither authentication nor "
            "encryption: who reaches the port can run anything."
        )
    server.start()
    return server


if __name__ == "__main__":
    define_flags()
    app.run(serve)
