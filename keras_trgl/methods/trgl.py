"""TRGL, greedy learning with the transport regulariser, and VanGL, without it."""

from collections.abc import Sequence
from typing import Any

from keras_trgl.checks import check_choice, check_positive
from keras_trgl.energy import REDUCTIONS
from keras_trgl.methods.method import LocalMethod
from keras_trgl.registration import public
from keras_trgl.regularizers.kinetic_energy import KineticEnergy


@public
class VanGL(LocalMethod):
    """Vanilla greedy learning: stage k minimises the task loss of F_k∘G_k alone.

    Example:
        >>> from keras_trgl.methods import VanGL
        >>> VanGL().get_config()
        {}

    Reference:
        Belilovsky et al., "Decoupled Greedy Learning of CNNs", 2020, equation 1.
    """


@public
class TRGL(LocalMethod):
    """Stage k minimises task loss + energy / (2 τ_k).

    Args:
        tau: float > 0, or list of them, one per stage. Step of the minimizing movement scheme,
            in energy per unit of task loss: small is strong, and `tau → ∞` is `VanGL`.
            Defaults to `1.0`.
        reduction: `"mean"`: energy as the mean over every axis (published code). `"sum"`: norm
            per example, mean over the batch (the paper). Values of `tau` travel only with their
            reduction. Defaults to `"mean"`.

    Raises:
        ValueError: a `tau` is not above zero; `reduction` is another word; at construction of
            the model, a list whose length is not the number of stages.

    Example:
        >>> from keras_trgl.methods import TRGL
        >>> TRGL(tau=0.5).get_config()
        {'tau': 0.5, 'reduction': 'mean'}

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, equation 4.
    """

    def __init__(self, tau: float | Sequence[float] = 1.0, reduction: str = "mean") -> None:
        many = isinstance(tau, (list, tuple))
        for value in tau if many else [tau]:  # type: ignore[union-attr, list-item]
            check_positive("tau", value, "Small is strong; for no regulariser use `VanGL()`.")
        check_choice("reduction", reduction, REDUCTIONS)
        self.tau = [float(value) for value in tau] if many else float(tau)  # type: ignore[union-attr, arg-type]
        self.reduction = reduction

    def make_regularizer(self, stage: int, num_stages: int) -> KineticEnergy:
        """Give the kinetic energy of a stage with its own τ.

        Args:
            stage: int. Position of the stage, from 0.
            num_stages: int. Stages there are.

        Raises:
            ValueError: `tau` is a list of another length.
        """
        if isinstance(self.tau, float):
            return KineticEnergy(self.tau, self.reduction)
        if len(self.tau) != num_stages:
            raise ValueError(
                f"A list of `tau` must have one value per stage, {num_stages}. "
                f"Received: tau={self.tau}. Give one number to use it for every stage."
            )
        return KineticEnergy(self.tau[stage], self.reduction)

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        return {"tau": self.tau, "reduction": self.reduction}
