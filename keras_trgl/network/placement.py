"""Where the stages of one model live, as the strategy that is in force wants it."""

import contextlib
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_trgl.devices import device_name, device_of, move_variables
from keras_trgl.layers.chain import passes_several
from keras_trgl.layers.inner import seed_generators
from keras_trgl.network.no_head import NoHead
from keras_trgl.splitting.by_depth import by_depth
from keras_trgl.splitting.partition import min_max_partition
from keras_trgl.splitting.profile import profile
from keras_trgl.splitting.stage_bytes import stage_bytes
from keras_trgl.types import Shape, StagePlacement

PROFILED_BATCH = 32
"""Examples of a batch that stages are timed with, for `stage_devices="time"`."""


class Placement:
    """The devices of a model's stages; no devices where the strategy in force places no stages.

    Args:
        num_stages: int. K.

    Attributes:
        strategy: the `StagePlacement` in force, or `None`.
        devices: list of K full device names, or of `None`.

    Raises:
        ValueError: the strategy has more devices than the model stages, or `stage_devices` of
            another length.
    """

    def __init__(self, num_stages: int) -> None:
        strategy: Any = tf.distribute.get_strategy()
        self.strategy = strategy if isinstance(strategy, StagePlacement) else None
        self.devices: list[str | None] = [None] * num_stages
        self.is_open = False
        if self.strategy is None:
            return
        wanted, devices = self.strategy.stage_devices, self.strategy.devices
        if len(devices) > num_stages:
            raise ValueError(
                "Every device needs a stage. Received: "
                f"{len(devices)} devices for {num_stages} stages. Give `StageParallelStrategy` at "
                f"most {num_stages} devices, or cut the network into more stages."
            )
        if isinstance(wanted, tuple):
            if len(wanted) != num_stages:
                raise ValueError(
                    "`stage_devices` must name a device for every stage. Received: "
                    f"{len(wanted)} devices for {num_stages} stages. `None` shares them out."
                )
            self.devices = list(wanted)
            return
        self._assign(by_depth(range(num_stages), len(devices)))
        # Until the model is built the even split stands in, so that layers are made somewhere.
        # Costs need the shape of the data, and only one device is no choice.
        self.is_open = wanted is not None and len(devices) > 1

    @property
    def is_spread(self) -> bool:
        """Whether stages sit on more than one device."""
        return len(set(self.devices)) > 1

    @property
    def is_remote(self) -> bool:
        """Whether a device is in another process."""
        return self.strategy is not None and self.strategy.is_remote

    @property
    def skews(self) -> bool:
        """Whether stages of one call are to work on different batches."""
        return self.is_spread and self.strategy is not None and self.strategy.schedule == "skewed"

    def on(self, k: int) -> Any:
        """Give the context in which stage k, counted from 0, is made and run."""
        device = self.devices[k]
        return contextlib.nullcontext() if device is None else tf.device(device)

    def call(self, function: Callable[..., Any], *args: Any, **names: Any) -> Any:
        """Call a function that runs on the stages' devices."""
        if self.strategy is None:
            return function(*args, **names)
        stages: dict[str, list[int]] = {}
        for depth, device in enumerate(self.devices, start=1):
            stages.setdefault(str(device), []).append(depth)
        return self.strategy.call(function, *args, stages=stages, **names)

    def check_home(self, layer: Any, k: int) -> None:
        """Raise unless a built layer lives where stage k, counted from 0, does.

        Raises:
            ValueError: one of its variables is elsewhere.
        """
        device = self.devices[k]
        for variable in layer.variables if device is not None else ():
            if device_of(variable) != device:
                raise ValueError(
                    f"Layers of stage {k + 1} must be made on its device, {device}. Received: "
                    f"{layer.name}, built on {device_of(variable)}. Give an unbuilt layer, which "
                    "is built there, and load its weights afterwards; or build it inside "
                    f"`with tf.device({device!r}):`."
                )

    def bring(self, layer: Any, k: int) -> None:
        """Let what a layer has from the start live where stage k, counted from 0, does.

        Raises:
            ValueError: the layer is built elsewhere.
        """
        if not tf.distribute.has_strategy():
            return
        for generator in seed_generators(layer):
            # Made anew, a state lives where variables are made here: on a device, or on several.
            made = type(generator)(0, name=generator.name)
            made.state.assign(generator.state.numpy())
            generator.state = made.state
        if layer.built:
            self.check_home(layer, k)
        else:
            self.move(k, layer.variables)

    def check_idle(self, idle_device: Any) -> None:
        """Raise if a regime would move stages that have their devices.

        Raises:
            ValueError: `idle_device` is given.
        """
        if idle_device is not None and self.strategy is not None:
            raise ValueError(
                "Every stage has its device already, by `StageParallelStrategy`. Received: "
                f"idle_device={idle_device!r}. Leave one of them out."
            )

    def check_scope(self, name: str) -> None:
        """Raise inside the scope of another strategy than the one that places the stages.

        Raises:
            ValueError: it is another.
        """
        current: Any = tf.distribute.get_strategy()
        if isinstance(current, StagePlacement) and self.strategy is not current:
            raise ValueError(
                "A model must be made inside the scope of the strategy that places its stages. "
                f"Received: {name}, made outside. Make it inside `with strategy.scope():`."
            )

    def check_jit(self, jit_compile: Any) -> None:
        """Raise if one program of XLA would have to run on several devices; warn of it on one.

        Raises:
            ValueError: `jit_compile` is `True` with stages on several devices.
        """
        if jit_compile is True and self.is_spread:
            raise ValueError(
                "XLA compiles for one device. Received: jit_compile=True with stages on "
                f"{', '.join(sorted({str(one) for one in self.devices}))}. Leave `jit_compile` "
                "out, or place all stages on one device."
            )
        if jit_compile is True:
            warnings.warn(
                "With `jit_compile=True` XLA orders the stages itself: training is right, but "
                "memory is not saved. Leave `jit_compile` out to save it.",
                stacklevel=3,
            )

    def resolve(
        self, stages: Sequence[Any], heads: Sequence[Any], shape: Shape, method: Any = None
    ) -> None:
        """Choose the devices of consecutive stages by what the stages cost.

        Args:
            stages: list of K stages.
            heads: list of K heads.
            shape: shape of the data, batch axis included.
            method: `LocalMethod` whose nets count with their stages' bytes, or `None`. Defaults
                to `None`.

        Raises:
            ValueError: several tensors cross a cut.
        """
        if not self.is_open or self.strategy is None:
            return
        if any(passes_several(block) for stage in stages for block in stage.blocks):
            raise ValueError(
                "Stages are weighed for devices where one tensor crosses every cut. Received: "
                f"stage_devices={self.strategy.stage_devices!r} for a model where several do. "
                "Name a device for every stage, or leave `stage_devices` out."
            )
        self.is_open, costs = False, list[float]()
        if self.strategy.stage_devices == "memory":
            ends = list(itertools.accumulate(len(stage.blocks) for stage in stages))
            blocks = [block for stage in stages for block in stage.blocks]
            # Of all at once: a method's nets ask for the depth, the data, and later blocks.
            counted = stage_bytes(blocks, heads, shape, method, len(stages), ends)
            costs = [float(counted(*cut)) for cut in zip([0, *ends], ends, strict=False)]
        for stage, head in () if costs else zip(stages, heads, strict=True):
            # On one device for all: what counts is the ratio between stages.
            with tf.device(self.strategy.devices[0]):
                own = None if isinstance(head, NoHead) else head
                times = profile(stage.blocks, PROFILED_BATCH, head=own, input_shape=shape[1:])
            costs.append(times.stage_seconds(0, len(stage.blocks)))
            shape = tuple(stage.compute_output_shape(shape))
        sizes = min_max_partition(
            len(costs), len(self.strategy.devices), lambda start, end: sum(costs[start:end])
        )
        self._assign(sizes)

    def move(self, k: int, variables: Sequence[Any]) -> bool:
        """Move variables of stage k, counted from 0, to its device; tell if any was elsewhere."""
        device = self.devices[k]
        return device is not None and move_variables(variables, device)

    def _assign(self, sizes: Sequence[int]) -> None:
        """Put the first stages on the first device, and so on."""
        devices = self.strategy.devices if self.strategy is not None else ()
        self.devices = [
            device_name(device)
            for device, size in zip(devices, sizes, strict=True)
            for _ in range(size)
        ]


def unplaced_copy(model: Any) -> Any:
    """Give a copy of a built model on the default device, whose graph names no other.

    Raises:
        ValueError: inside a strategy's scope, where a copy would be placed too.
    """
    copy = type(model).from_config(model.get_config())
    if copy.placement.strategy is not None:
        raise ValueError(
            "A model is exported outside the scope of a strategy, so that no device gets into "
            "the export. Received: a call in such a scope. Export after it."
        )
    copy.build(model.input_shape)
    for variable, value in zip(copy.variables, model.variables, strict=True):
        variable.assign(value.numpy())
    return copy


def strategy_in_force() -> Any:
    """Give the `tf.distribute` strategy whose scope the caller is in, or the default one."""
    return tf.distribute.get_strategy()
