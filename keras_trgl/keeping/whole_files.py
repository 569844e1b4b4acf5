"""Saving and loading of a model by files that are whole or absent."""

from typing import Any

import keras

from keras_trgl.devices import on_devices
from keras_trgl.keeping.saving import (
    check_weights_fit,
    read_seed,
    saved_aside,
    weights_kept_on_failure,
    write_seed,
)
from keras_trgl.keeping.state_tree import (
    METRICS,
    assign_trees,
    named_once,
    places_of,
    slots_of,
    tree_of,
)


class WholeFiles(keras.Model):
    """A Keras model whose files are written aside and renamed.

    A member gives `placement`, `seed` and whether it was given, a network that takes up another
    seed, and `drain` where something may be under way.
    """

    seed_is_given: bool
    _network: Any

    def drain(self) -> None:
        """End what is under way before the state is read; here nothing is."""

    @on_devices
    def save(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save as Keras does, but aside and then renamed: the old file stays whole till then.

        Args:
            filepath: str or path, ending in `.keras`.
            overwrite: bool. With `False` an existing file is an error. Defaults to `True`.
            **kwargs: as in `keras.Model.save`.
        """
        self.drain()
        with saved_aside(filepath, overwrite) as aside:
            super().save(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def save_weights(self, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
        """Save the weights as Keras does, but aside and then renamed.

        Args:
            filepath: str or path, ending in `.weights.h5`.
            overwrite: bool. With `False` an existing file is an error. Defaults to `True`.
            **kwargs: as in `keras.Model.save_weights`.
        """
        self.drain()
        with saved_aside(filepath, overwrite) as aside:
            super().save_weights(aside, overwrite=overwrite, **kwargs)

    @on_devices
    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights of the same network; of another, raise and change nothing.

        Args:
            filepath: str or path.
            skip_mismatch: bool. Whether to pass over what does not fit. Defaults to `False`.
            **kwargs: as in `keras.Model.load_weights`.

        Raises:
            ValueError: the file holds another model's weights.
        """
        with weights_kept_on_failure(self, filepath):
            if not skip_mismatch and not kwargs.get("objects_to_skip"):
                check_weights_fit(self, filepath)
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    @on_devices
    def get_state_tree(self, value_format: str = "backend_tensor") -> dict[str, Any]:
        """Give the variables as Keras does, by paths that tell the place in the network.

        A path is like `stage_1/block_2/kernel` or `stage_1/head/bias`, whatever layers are called:
        a tree fits every model of the same stages and heads.

        Args:
            value_format: `"backend_tensor"` or `"numpy_array"`. Defaults to `"backend_tensor"`.

        Returns:
            dict of group to nested dict of values. Batches in stores are not in it.

        Raises:
            ValueError: another format.
        """
        self.drain()
        groups = self._state_groups().items()
        return {group: tree_of(named, value_format) for group, named in groups}

    @on_devices
    def set_state_tree(self, state_tree: dict[str, Any]) -> None:
        """Assign what `get_state_tree` gave, all of it or nothing.

        Args:
            state_tree: dict of group to nested dict of values; what it leaves out stays.

        Raises:
            ValueError: a group, a path or a shape that the model does not have.
        """
        assign_trees(self._state_groups(), state_tree)

    def _state_groups(self) -> dict[str, dict[str, Any]]:
        places, optimizer = places_of(self._network.parts), self.optimizer
        inner = getattr(optimizer, "optimizers", ())
        slots = slots_of(inner, self.variables, places)
        return {
            "trainable_variables": named_once(self.trainable_variables, places),
            "non_trainable_variables": named_once(self.non_trainable_variables, places),
            "optimizer_variables": named_once(getattr(optimizer, "variables", ()), slots),
            METRICS: named_once(self.metrics_variables, self._places_of_metrics),
        }

    @property
    def _places_of_metrics(self) -> dict[int, str]:
        """Paths of the variables of metrics, by `id`; here they have their own."""
        return {}

    def save_assets(self, dir_path: Any) -> None:
        """Keep a seed that was drawn, which is no setting, in a saved model's file."""
        if not self.seed_is_given:
            write_seed(dir_path, self._network.seed)

    def load_assets(self, dir_path: Any) -> None:
        """Take up the seed that the saved model had drawn; a clone draws its own."""
        seed = read_seed(dir_path)
        if seed is not None:
            self._network.seed_again(seed)
