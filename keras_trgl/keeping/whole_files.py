"""Saving and loading of a model by files that are whole or absent."""

from typing import Any

import keras

from keras_trgl.devices import on_devices
from keras_trgl.keeping.saving import (
    check_weights_fit,
    read_seed,
    weights_kept_on_failure,
    write_seed,
    written_aside,
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
        with written_aside(filepath, overwrite) as aside:
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
        with written_aside(filepath, overwrite) as aside:
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
            if not skip_mismatch:
                check_weights_fit(self, filepath)
            super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def save_assets(self, dir_path: Any) -> None:
        """Keep a seed that was drawn, which is no setting, in a saved model's file."""
        if not self.seed_is_given:
            write_seed(dir_path, self._network.seed)

    def load_assets(self, dir_path: Any) -> None:
        """Take up the seed that the saved model had drawn; a clone draws its own."""
        seed = read_seed(dir_path)
        if seed is not None:
            self._network.seed_again(seed)
