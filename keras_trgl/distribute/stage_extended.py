"""What TensorFlow asks of a strategy: one replica, whose variables stay where they are made.

`tf.distribute.StrategyExtended` is the public base class; TensorFlow fills in a strategy by
overriding methods of it whose names begin with an underscore. They may move with a release: a test
calls each of them.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class StageReplicaContext(tf.distribute.ReplicaContext):
    """The context of the only replica."""


class StageParallelExtended(tf.distribute.StrategyExtended):
    """One replica over several devices.

    Variables are made where the `tf.device` in force says, and updated there.

    Args:
        strategy: the `tf.distribute.Strategy` it belongs to.
        devices: full names of the devices.
    """

    def __init__(self, strategy: Any, devices: Sequence[str]) -> None:
        super().__init__(strategy)
        self._devices = tuple(devices)

    def _create_variable(self, next_creator: Callable[..., Any], **kwargs: Any) -> Any:
        beside = kwargs.pop("colocate_with", None)
        place = contextlib.nullcontext() if beside is None else tf.device(beside.device)
        with place:
            return next_creator(**kwargs)

    def _validate_colocate_with_variable(self, colocate_with_variable: Any) -> None:
        del colocate_with_variable

    def call_for_each_replica(self, fn: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function in the context of the replica.

        Args:
            fn: function.
            args: its arguments. Defaults to none.
            kwargs: its arguments by name. Defaults to none.
        """
        strategy = self._container_strategy()
        with strategy.scope(), StageReplicaContext(strategy, 0):
            return fn(*args, **(kwargs or {}))

    def _update(self, var: Any, fn: Any, args: Any, kwargs: Any, group: bool) -> Any:
        with tf.device(var.device):
            result = fn(var, *args, **kwargs)
        return result if group else tf.nest.map_structure(self._local_results, result)

    def _experimental_distribute_dataset(self, dataset: Any, options: Any) -> Any:
        del options
        return dataset

    def _distribute_datasets_from_function(self, dataset_fn: Any, options: Any) -> Any:
        del options
        return dataset_fn(tf.distribute.InputContext())

    def _experimental_distribute_values_from_function(self, value_fn: Any) -> Any:
        return value_fn(tf.distribute.experimental.ValueContext())

    def _reduce_to(self, reduce_op: Any, value: Any, destinations: Any, options: Any) -> Any:
        del reduce_op, destinations, options
        return value

    def _gather_to_implementation(
        self, value: Any, destinations: Any, axis: Any, options: Any
    ) -> Any:
        del destinations, axis, options
        return value

    def _replica_ctx_all_reduce(self, reduce_op: Any, value: Any, options: Any = None) -> Any:
        del reduce_op, options
        return value

    def _local_results(self, val: Any) -> tuple[Any, ...]:
        return (val,)

    def value_container(self, value: Any) -> Any:
        """Give the value: it has no container."""
        return value

    def read_var(self, v: Any) -> Any:
        """Give a variable's value."""
        return tf.convert_to_tensor(v)

    def _use_merge_call(self) -> bool:
        return True

    def _in_multi_worker_mode(self) -> bool:
        return False

    def _get_local_replica_id(self, replica_id_in_sync_group: Any) -> Any:
        return replica_id_in_sync_group

    @property
    def _num_replicas_in_sync(self) -> int:
        return 1

    @property
    def worker_devices(self) -> tuple[str, ...]:
        """The first device: there is one replica."""
        return self._devices[:1]

    @property
    def parameter_devices(self) -> tuple[str, ...]:
        """Where variables may be."""
        return self._devices

    def non_slot_devices(self, var_list: Any) -> Any:
        """Give where variables are made that belong to no other: the first device."""
        del var_list
        return self._devices[0]

    @property
    def experimental_between_graph(self) -> bool:
        """Whether graphs of several processes make up the strategy."""
        return False

    @property
    def should_checkpoint(self) -> bool:
        """Whether this process saves."""
        return True

    @property
    def should_save_summary(self) -> bool:
        """Whether this process writes summaries."""
        return True
