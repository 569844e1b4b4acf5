"""`StageParallelStrategy`: stage k of a `GreedyModel` on device k."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_choice, check_positive
from keras_trgl.devices import current_device, device_name, device_of
from keras_trgl.distribute.cluster import worker_of
from keras_trgl.distribute.lost_device import LostDeviceError, Watch, _Lost
from keras_trgl.distribute.stage_extended import StageParallelExtended
from keras_trgl.recording import shown, told
from keras_trgl.registration import public

SCHEDULES = ("skewed", "synchronous")
SPLITS = ("memory", "time")
REMOTE = re.compile(r"/job:(?!localhost)|^[^/]+:\d{4,}$")
"""Names that speak of another process: a device of a job, or an address."""


@public
class StageParallelStrategy(tf.distribute.Strategy):
    """Puts the stages of a `GreedyModel` on different devices, where they train at once.

    Make and compile the model inside `scope()`; `fit`, `evaluate`, `predict`, `save` are as ever.
    Weights, optimizer, statistics, dropout seeds, multiplier and metrics of a stage live on its
    device, and its arithmetic runs there. The numbers are those of a single device, bit for bit
    where the devices' kernels are the same.

    Args:
        devices: list of devices, in the order of the stages they take: `"GPU:0"`, `"CPU:1"`, or
            full names, such as `connect` gives for remote workers. At most as many as stages.
        stage_devices: `None`: consecutive stages share a device, as many on each as can be.
            `"memory"`: consecutive stages, the largest sum of activation bytes per device being
            least. `"time"`: the same for seconds, measured on the first device when the model is
            built. A list: the device of each stage. Defaults to `None`.
        schedule: `"skewed"`: the stages of one call work on different batches, stage k on batch
            t − k + 1, so that none waits for another; drained at the end of an epoch, before
            validation and before saving. `"synchronous"`: one batch at a time, stage after
            stage. For the parallel regime with stages on several devices. Defaults to
            `"skewed"`.
        timeout: float > 0. Seconds after which a remote device that does not answer counts as
            lost. Defaults to `60.0`.

    With `"skewed"`, logs of one batch speak of K different batches (those of an epoch are
    exact), and a learning rate that a callback changes within an epoch reaches stage k k − 1
    batches early. `train_on_batch` is synchronous.

    Attributes:
        devices: tuple of full names.

    Raises:
        TypeError: devices that are no list, a device that is no str.
        ValueError: an unknown device, one given twice, another word for `stage_devices` or
            `schedule`. At the model: more devices than stages; a layer built elsewhere;
            `jit_compile=True` on several devices.

    Example:
        >>> import keras_trgl as trgl
        >>> strategy = trgl.distribute.StageParallelStrategy(["CPU:0"])
        >>> with strategy.scope():
        ...     model = trgl.GreedyModel.from_blocks(
        ...         trgl.architectures.resnet(depth=8, input_shape=(8, 8, 1)),
        ...         stage_sizes=[2, 1], head=trgl.heads.LinearHead(units=3), seed=0)
        >>> strategy.report(model)[strategy.devices[0]]["stages"]
        [1, 2]
    """

    def __init__(
        self,
        devices: Sequence[str],
        stage_devices: Any = None,
        schedule: str = "skewed",
        timeout: float = 60.0,
    ) -> None:
        _check_list("devices", devices, "For one device write `['GPU:0']`.")
        check_choice("schedule", schedule, SCHEDULES)
        check_positive("timeout", timeout, "In seconds.")
        self.devices: tuple[str, ...] = tuple(_known(device) for device in devices)
        twice = sorted({one for one in self.devices if self.devices.count(one) > 1})
        if twice:
            raise ValueError(
                f"`devices` must be different ones. Received twice: {', '.join(twice)}. To put "
                "several stages on a device pass `stage_devices`."
            )
        self.stage_devices = self._checked(stage_devices)
        self.schedule = schedule
        here = tf.DeviceSpec.from_string(current_device())
        elsewhere = [one for one in self.devices if not _is_in(here, one)]
        self.is_remote = bool(elsewhere)
        self._watch = Watch(elsewhere, float(timeout), worker_of)
        super().__init__(StageParallelExtended(self, self.devices))

    def __repr__(self) -> str:
        names = {
            name: tuple(map(_in_short, value)) if isinstance(value, tuple) else value
            for name, value in told(self).items()
        }
        return shown(self, **names)

    def _checked(self, stage_devices: Any) -> Any:
        if stage_devices is None:
            return None
        if isinstance(stage_devices, str):
            check_choice("stage_devices", stage_devices, (*SPLITS, None))
            return stage_devices
        _check_list("stage_devices", stage_devices, "`None` shares the devices out.")
        names = tuple(_known(device) for device in stage_devices)
        others = sorted(set(names) - set(self.devices))
        if others:
            raise ValueError(
                f"`stage_devices` must be among `devices`, {', '.join(self.devices)}. Received: "
                f"{', '.join(others)}."
            )
        return names

    def scope(self) -> Any:
        """Give the context in which models are made and compiled.

        Returns:
            Context manager.

        Raises:
            RuntimeError: another strategy is in force.
        """
        current = tf.distribute.get_strategy()
        if tf.distribute.has_strategy() and current is not self:
            raise RuntimeError(
                "Strategies do not nest. Received: the scope of `StageParallelStrategy` inside "
                f"that of {type(current).__name__}. Leave one of them out; stages cannot have "
                "replicas."
            )
        return super().scope()

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        stages: dict[str, list[int]] | None = None,
        **names: Any,
    ) -> Any:
        """Call a function that runs on the devices; for remote ones, see that they answer.

        Args:
            function: function.
            *args: its arguments.
            stages: dict of device to the depths of its stages, for the message. Defaults to
                `None`.
            **names: its arguments by name.

        Returns:
            What the function gives; tensors of remote devices are brought to this process.

        Raises:
            LostDeviceError: a device does not answer. Later calls raise it at once.
        """
        if not self.is_remote:
            return function(*args, **names)
        try:
            return self._watch.call(function, *args, **names)
        except _Lost as lost:
            cause = lost.__cause__
        # Keras's `fit` cuts off what an error was raised from, so the words are in the message.
        said = "" if cause is None else f" TensorFlow said: {str(cause).splitlines()[0]}"
        raise LostDeviceError(self._story(stages or {}) + said, self._watch.lost) from cause

    def _story(self, stages: dict[str, list[int]]) -> str:
        lost = []
        for device in self._watch.lost:
            depths = stages.get(device, [])
            who = f"Stage {', '.join(map(str, depths))}" if depths else "A device"
            lost.append(f"{who} on {device} is lost: its worker, {worker_of(device)}, is silent.")
        return (
            f"{' '.join(lost)} Its weights are gone. Start the worker again, call `connect`, make "
            "a new strategy and the model in its scope, and go on from a backup: `fit` with "
            "`BackupAndRestore`, or `load_weights`."
        )

    def report(self, model: keras.Model) -> dict[str, dict[str, Any]]:
        """Give what each device holds of a model.

        Args:
            model: `GreedyModel` made in this strategy's scope.

        Returns:
            Dict of device to a dict: `stages`, their depths; `variable_bytes`, of weights,
            optimizers, metrics and states; `allocated_bytes` and `peak_bytes`, as the device's
            allocator tells, or `None` where it does not (CPUs by default, remote devices).

        Raises:
            ValueError: the model was made outside the scope.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a `GreedyModel`, made already. Received: {model!r}.")
        placement = getattr(model, "placement", None)
        if placement is None or placement.strategy is not self:
            raise ValueError(
                "The model must be made inside this strategy's scope. Received: "
                f"{model.name}, made outside."
            )
        held = dict.fromkeys(self.devices, 0)
        groups = model.state_variables() if model.compiled else {"model": model.variables}
        for variable in (one for group in groups.values() for one in group):
            device = variable.device if isinstance(variable, tf.Variable) else device_of(variable)
            held[device] = held.get(device, 0) + _bytes(variable)
        return {
            device: {
                "stages": [k + 1 for k, one in enumerate(placement.devices) if one == device],
                "variable_bytes": size,
                **_allocator(device),
            }
            for device, size in held.items()
        }


def _check_list(name: str, value: Any, hint: str) -> None:
    """Raise unless a value is a list or a tuple: stages go by order, which sets have not.

    Raises:
        TypeError: it is none.
        ValueError: it is a str, or empty.
    """
    if not isinstance(value, list | tuple) or not value:
        raise (ValueError if isinstance(value, str | list | tuple) else TypeError)(
            f"`{name}` must be a list of device names. Received: {name}={value!r}. {hint}"
        )


def _known(device: Any) -> str:
    if not isinstance(device, str):
        raise TypeError(
            f"A device must be a name, as in 'GPU:0'. Received: {device!r}. A device of TensorFlow "
            "has it as `name`; a number is that of no device."
        )
    try:
        return device_name(device)
    except ValueError as error:
        if not REMOTE.search(device):
            raise
        raise ValueError(
            f"A worker's device must be one that `connect` gave. Received: {device!r}. Write "
            "`devices = connect(['10.0.0.2:7000'])`, then `StageParallelStrategy(devices)`."
        ) from error


def _in_short(device: str) -> str:
    """Give a device's name without what every device of its process has in it."""
    name = device.removeprefix("/job:localhost")
    return name.replace("/replica:0", "").removeprefix("/task:0").removeprefix("/device:")


def _is_in(here: Any, device: str) -> bool:
    spec = tf.DeviceSpec.from_string(device)
    return (spec.job, spec.replica, spec.task) == (here.job, here.replica, here.task)


def _bytes(variable: Any) -> int:
    size = 1
    for side in variable.shape:
        size *= side or 0
    return int(size * tf.as_dtype(variable.dtype).size)


def _allocator(device: str) -> dict[str, int | None]:
    # Logical CPUs share one allocator, so its figures say nothing of one of them.
    nothing: dict[str, int | None] = {"allocated_bytes": None, "peak_bytes": None}
    if tf.DeviceSpec.from_string(device).device_type == "CPU":
        return nothing
    try:
        info = tf.config.experimental.get_memory_info(device)
    except ValueError:
        return nothing
    return {"allocated_bytes": info["current"], "peak_bytes": info["peak"]}
