"""The kinetic energy of a stage.

One block: |r(x)|², the squared size of what it adds. A stage of n blocks: the sum over its blocks,
E = Σ_m |r_m|². It discretises ∫ |v_t|² dt, the kinetic energy of a flow that carries features
through the stage, with one time step a block; the least energy between two distributions is their
squared Wasserstein distance W2².

|·|² has two conventions, `reduction="mean"` (published code: the mean over every axis) and
`"sum"` (the paper: sum over features, mean over the batch).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_trgl.checks import check_choice, check_tau
from keras_trgl.energy import REDUCTIONS, direct_energy
from keras_trgl.recording import Recorded
from keras_trgl.registration import public
from keras_trgl.types import Tensor


@public
def kinetic_energy(residuals: list[Tensor], reduction: str = "mean") -> Tensor:
    """Give the kinetic energy of a stage from its blocks' residuals.

    Args:
        residuals: list of tensors, one per block, each `(batch, …)`.
        reduction: `"mean"`: mean of `r ** 2` over all axes (published code). `"sum"`: squared
            norm per example, mean over the batch (the paper). Both sum over blocks. Defaults
            to `"mean"`.

    Returns:
        Tensor, a scalar of `floatx`, squared feature units. Zero for an empty list.

    Raises:
        ValueError: `reduction` is another word.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.regularizers import kinetic_energy
        >>> float(kinetic_energy([np.full((2, 3), 2.0), np.ones((2, 5))]))
        5.0

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, equation 9.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    total = ops.zeros((), dtype=keras.config.floatx())
    for residual in residuals:
        total = ops.add(total, direct_energy(ops.convert_to_tensor(residual), reduction))
    return total


@public
class KineticEnergy(Recorded, keras.layers.Layer):
    """Adds `energy / (2 tau)` to the losses of the stage that calls it.

    Args:
        tau: float > 0. Step of the minimizing movement scheme, in energy per unit of task loss;
            small is strong. Defaults to `1.0`.
        reduction: `"mean"` or `"sum"`, see `kinetic_energy`. Defaults to `"mean"`.
        **kwargs: `name` and the like, as for any Keras layer.

    The weight `1 / (2 tau)` is a variable, `weight`, that is not trained: assign to `tau` to move
    it during training. With the method of multipliers it is `1 / λ`; λ and the number of batches
    since λ was started stand beside it, as `multiplier` and `batches`.

    Raises:
        ValueError: `tau` is not above zero, or `reduction` is another word.

    Example:
        >>> import numpy as np
        >>> from keras_trgl.regularizers import KineticEnergy
        >>> regularizer = KineticEnergy(tau=0.5)
        >>> float(regularizer([np.array(1.5), np.array(1.25)])), float(regularizer.losses[0])
        (2.75, 2.75)

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, equation 4.
    """

    always_shown = ("tau",)

    def __init__(self, tau: float = 1.0, reduction: str = "mean", **kwargs: Any) -> None:
        # floatx, not a half type: the energy is added up in full precision.
        super().__init__(**{"dtype": keras.config.floatx(), **kwargs})
        check_tau("tau", tau, "Small is strong; 1.0 is a good start.")
        check_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        self._initial_tau = float(tau)
        self._energy: Tensor | None = None

    def build(self, input_shape: Any = None) -> None:
        """Make the weight `1 / (2 tau)` and the state of the method of multipliers."""
        del input_shape
        tau = self._initial_tau

        def number(name: str, value: float, **options: Any) -> Any:
            return self.add_weight(
                shape=(),
                # NumPy, not a Python number: Keras would cast that through float32.
                initializer=lambda shape, dtype: ops.convert_to_tensor(
                    np.full(shape, value, dtype)
                ),
                trainable=False,
                # Replicas compute the same value: a sum would count it once for each.
                aggregation="only_first_replica",
                name=name,
                **options,
            )

        self.weight = number("weight", 0.5 / tau)
        self.multiplier = number("multiplier", 2.0 * tau)
        self.batches = number("batches", 0, dtype="int64")
        self.built = True

    @property
    def tau(self) -> float:
        """Step of the scheme, as the weight has it now; float > 0."""
        if not self.built:
            return self._initial_tau
        return 0.5 / float(ops.convert_to_numpy(self.weight))

    @tau.setter
    def tau(self, value: float) -> None:
        check_tau("tau", value, "Small is strong; 1.0 is a good start.")
        self._initial_tau = float(value)
        if self.built:
            self.start_multiplier(2.0 * float(value))

    @property
    def energy(self) -> Tensor | None:
        """Unweighted energy of the latest call, a scalar tensor; `None` before one."""
        return self._energy

    def start_multiplier(self, initial: float | None = None) -> None:
        """Set the multiplier and the weight that goes with it, and count batches from 0.

        Args:
            initial: float > 0. λ to start with; `None` is 2τ. Defaults to `None`.
        """
        value = 2.0 * self._initial_tau if initial is None else float(initial)
        self.multiplier.assign(np.asarray(value, self.multiplier.dtype))
        self.weight.assign(np.asarray(1.0 / value, self.weight.dtype))
        self.batches.assign(np.asarray(0, "int64"))

    def next_multiplier(self, loss: Tensor, h: float, s: int) -> tuple[Tensor, Tensor]:
        """Give the number of this batch, from 1, and the multiplier for it; assign nothing.

        Args:
            loss: scalar tensor, the task loss of the batch, mean over the global batch.
            h: float > 0. λ ← λ + h·loss …
            s: int ≥ 1, batches. … where s divides the batch's number.

        Returns:
            Tuple of two scalar tensors, int64 and of the multiplier's type.
        """
        batch = ops.add(self.batches, np.asarray(1, "int64"))
        multiplier = ops.convert_to_tensor(self.multiplier)
        step = ops.multiply(np.asarray(h, self.multiplier.dtype), ops.cast(loss, multiplier.dtype))
        due = ops.equal(ops.mod(batch, np.asarray(s, "int64")), np.asarray(0, "int64"))
        return batch, ops.where(due, ops.add(multiplier, step), multiplier)

    def move_multiplier(self, batch: Tensor, multiplier: Tensor) -> None:
        """Assign `next_multiplier`'s result, and the weight 1/λ.

        Args:
            batch: scalar tensor, int64. The batch's number, from 1.
            multiplier: scalar tensor, λ > 0, in task loss per unit of energy.
        """
        self.batches.assign(batch)
        self.multiplier.assign(multiplier)
        self.weight.assign(ops.divide(np.asarray(1.0, self.weight.dtype), multiplier))

    def call(self, energies: list[Tensor]) -> Tensor:
        """Add the weighted sum of the blocks' energies as a loss.

        Args:
            energies: list of scalar tensors, one per block.

        Returns:
            Scalar tensor, the unweighted energy of the stage.
        """
        energy = energies[0]
        for more in energies[1:]:
            energy = ops.add(energy, more)
        self._energy = energy
        self.add_loss(ops.multiply(energy, self.weight))
        return energy

    def get_config(self) -> dict[str, Any]:
        """Give the configuration, with the `tau` of now."""
        return {**super().get_config(), "tau": self.tau, "reduction": self.reduction}
