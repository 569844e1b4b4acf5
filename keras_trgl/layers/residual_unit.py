"""The abstract residual unit: a layer that can tell the energy of what it adds."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_trgl.checks import check_choice
from keras_trgl.energy import REDUCTIONS, direct_energy
from keras_trgl.layers.masks import hands_on
from keras_trgl.recording import Recorded
from keras_trgl.types import Tensor


class ResidualUnit(Recorded, keras.layers.Layer):
    """What `ResidualBlock` and `ResidualAdd` share: the energy of the latest recorded call.

    A member calls `_keep` in `call`, while `self._recording`, with either the residual or the
    mean of its square that it got more cheaply.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._recording = False
        self._residual: Tensor | None = None
        self._mean_square: Tensor | None = None
        # A unit says itself what the mask of its output is.
        self.supports_masking = True

    compute_mask = hands_on

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what `energy` needs from calls inside the context, and nothing after it.

        Returns:
            Context manager.
        """
        self._record(True)
        try:
            yield
        finally:
            self._record(False)

    def energy(self, reduction: str = "mean") -> Tensor:
        """Give the energy of the residual of the latest recorded call.

        Args:
            reduction: `"mean"` over every axis (published code), or `"sum"`: squared norm per
                example, mean over the batch (the paper's formula). Defaults to `"mean"`.

        Returns:
            Tensor, a scalar of `floatx`, squared feature units.

        Raises:
            ValueError: `reduction` is another word.
            RuntimeError: no call was recorded.
        """
        check_choice("reduction", reduction, REDUCTIONS)
        if self._residual is None:
            raise RuntimeError(
                f"`energy` of {self.name} speaks of a recorded call. Received: none. "
                "Call the layer and read `energy` inside `with layer.recording():`."
            )
        return direct_energy(self._residual, reduction, self._mean_square)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return dict(super().get_config())

    def _record(self, on: bool) -> None:
        self._recording = on
        self._keep(None, None)

    def _keep(self, residual: Tensor | None, mean_square: Tensor | None) -> None:
        """Keep the residual (for its shape and type, if the mean square is given)."""
        self._residual = residual
        self._mean_square = mean_square
