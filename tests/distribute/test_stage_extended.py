"""Every method that TensorFlow asks of a strategy exists, and gives what one replica should."""

import pytest
import tensorflow as tf

from keras_trgl.distribute import StageParallelStrategy
from keras_trgl.distribute.stage_extended import StageParallelExtended

pytestmark = pytest.mark.multi_device

CPUS = ["CPU:0", "CPU:1"]


@pytest.fixture
def strategy():
    return StageParallelStrategy(CPUS)


def test_tensorflow_still_asks_for_the_methods_that_are_filled_in():
    """A name that moved in TensorFlow would be a method here that nobody calls."""
    own = {
        name
        for name in vars(StageParallelExtended)
        if name.startswith("_") and not name.startswith("__")
    }
    # Not on the base class, yet asked for: the id by replica contexts, merge calls by optimizers.
    only_called = {"_get_local_replica_id", "_use_merge_call"}
    asked = set(dir(tf.distribute.StrategyExtended))
    assert own - only_called - asked == set()


def test_a_function_runs_once_in_the_context_of_the_replica(strategy):
    def function(x):
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, x)
        return total, context.num_replicas_in_sync, context.replica_id_in_sync_group

    total, replicas, number = strategy.run(function, args=(tf.constant(3.0),))
    assert (float(total), replicas, int(number)) == (3.0, 1, 0)
    assert strategy.num_replicas_in_sync == 1
    assert strategy.experimental_local_results(total) == (total,)
    assert float(strategy.reduce("SUM", tf.constant(2.0), axis=None)) == 2.0
    assert float(strategy.gather(tf.constant([2.0]), axis=0)[0]) == 2.0


def test_variables_are_made_where_the_device_in_force_says_and_updated_there(strategy):
    with strategy.scope(), tf.device("CPU:1"):
        variable = tf.Variable(1.0)
    with strategy.scope(), strategy.extended.colocate_vars_with(variable):
        beside = tf.Variable(1.0)
    assert variable.device == beside.device == strategy.devices[1]
    with strategy.scope():
        made = strategy.extended.update(
            variable, lambda v: (v.assign_add(1.0), tf.zeros([]))[1], group=False
        )
        strategy.extended.update(variable, lambda v: v.assign_add(1.0), group=True)
        assert float(variable) == 3.0
        assert made[0].device == strategy.devices[1]
        assert strategy.extended.non_slot_devices([variable]) == strategy.devices[0]
        assert float(strategy.extended.read_var(variable)) == 3.0
        assert strategy.extended.variable_created_in_scope(variable)
    assert strategy.extended.value_container(variable) is variable


def test_data_pass_as_they_are(strategy):
    dataset = tf.data.Dataset.range(3)
    assert strategy.experimental_distribute_dataset(dataset) is dataset
    made = strategy.distribute_datasets_from_function(lambda context: dataset)
    assert made is dataset
    value = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(context.num_replicas_in_sync)
    )
    assert int(value) == 1


def test_one_process_does_all(strategy):
    extended = strategy.extended
    assert extended.worker_devices == strategy.devices[:1]
    assert extended.parameter_devices == strategy.devices
    assert extended.should_checkpoint
    assert extended.should_save_summary
    assert not extended.experimental_between_graph
    assert not extended._in_multi_worker_mode()
    assert extended._use_merge_call()
