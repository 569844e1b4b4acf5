"""TRGL, greedy learning with the transport regulariser, and VanGL, without it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_trgl.checks import check_choice, check_tau
from keras_trgl.energy import REDUCTIONS
from keras_trgl.methods.delayed import DelayedMethod
from keras_trgl.methods.method import LocalMethod, StageBatch
from keras_trgl.recording import short
from keras_trgl.registration import public
from keras_trgl.regularizers.kinetic_energy import KineticEnergy
from keras_trgl.types import StagePlace, Tensor

RULES = ("constant", "doubled")


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

    loss_names = ()


@public
class TRGL(LocalMethod):
    """Stage k minimises task loss, or what another method has in its place, + energy / (2 τ_k).

    Args:
        tau: float > 0, or list of them, one per stage. Step of the minimizing movement scheme,
            in energy per unit of task loss: small is strong, and `tau → ∞` is `VanGL`.
            Defaults to `1.0`.
        reduction: `"mean"`: energy as the mean over every axis (published code). `"sum"`: norm
            per example, mean over the batch (the paper). Values of `tau` travel only with their
            reduction. Defaults to `"mean"`.
        rule: str or function. How τ_k comes from a number `tau`. `"constant"`: τ_k = `tau`.
            `"doubled"` (the paper's rule of thumb): `tau` in the second half, `tau / 2` in stages
            1 to ⌊K/2⌋; the flag of the published code is the second half's value too, the paper
            quotes the smaller. A function (tau, k, K) → τ_k > 0, k = 1…K, registered by
            `keras.saving.register_keras_serializable`. Defaults to `"constant"`.
        on: `LocalMethod` or `None`. The method whose objective the energy is added to, with its
            heads, nets and data: `TRGL(0.5, on=InfoPro())`. `None` is the task loss alone, as
            `on=VanGL()`. Defaults to `None`.

    Raises:
        ValueError: a `tau` is not above zero; `reduction` or `rule` is another word; a function
            is not registered, or stands beside a list; `on` has a regulariser of its own; at
            construction of the model, a list whose length is not the number of stages, or a
            function whose value is not above zero.
        TypeError: `on` is no `LocalMethod`.

    Example:
        >>> from keras_trgl.methods import TRGL
        >>> [TRGL(tau=1.0, rule="doubled").stage_tau(k, num_stages=4) for k in range(4)]
        [0.5, 0.5, 1.0, 1.0]

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, equation 4.
    """

    loss_names: Sequence[str] | None = ()
    always_shown = ("tau",)

    def __init__(
        self,
        tau: float | Sequence[float] = 1.0,
        reduction: str = "mean",
        rule: str | Callable[[float, int, int], float] = "constant",
        on: LocalMethod | None = None,
    ) -> None:
        many = isinstance(tau, (list, tuple))
        for value in tau if many else [tau]:  # type: ignore[union-attr, list-item]
            check_tau("tau", value, "Small is strong; for no regulariser use `VanGL()`.")
        check_choice("reduction", reduction, REDUCTIONS)
        if callable(rule):
            _check_registered(rule)
        else:
            check_choice("rule", rule, RULES)
        if many and rule != "constant":
            raise ValueError(
                f"`rule` makes every stage's τ from one number. Received: tau={tau}, "
                f"rule={rule!r}. Give one number, or leave `rule` out."
            )
        self.tau = [float(value) for value in tau] if many else float(tau)  # type: ignore[union-attr, arg-type]
        self.reduction = reduction
        self.rule = rule
        _check_adds_to(on)
        self.on = on
        if on is not None:
            self.needs_data = on.needs_data
            self.needs_energy = on.needs_energy
            self.adds_layer_losses = on.adds_layer_losses
            self.loss_names = on.loss_names

    @property
    def _under(self) -> LocalMethod:
        """The method that the energy is added to."""
        return VanGL() if self.on is None else self.on

    def stage_tau(self, stage: int, num_stages: int) -> float:
        """Give the τ of a stage.

        Args:
            stage: int ≥ 0. Position of the stage, from 0.
            num_stages: int ≥ 1, K.

        Returns:
            float > 0, in energy per unit of task loss.

        Raises:
            ValueError: `tau` is a list of another length, or `rule` gives no number above zero.
            TypeError: `rule` gives no number.
        """
        if isinstance(self.tau, list):
            if len(self.tau) != num_stages:
                raise ValueError(
                    f"A list of `tau` must have one value per stage, {num_stages}. "
                    f"Received: tau={self.tau}. Give one number to use it for every stage."
                )
            return self.tau[stage]
        if callable(self.rule):
            value = self.rule(self.tau, stage + 1, num_stages)
            check_tau(f"rule(tau, {stage + 1}, {num_stages})", value, "It is the stage's τ.")
            return float(value)
        if self.rule == "doubled" and stage < num_stages // 2:
            check_tau("tau / 2", self.tau / 2, "It is the τ of the first half.")
            return self.tau / 2
        return self.tau

    def stage_regularizer(self, stage: StagePlace) -> KineticEnergy:
        """Give the kinetic energy of a stage with its own τ; see `stage_tau`."""
        return KineticEnergy(self.stage_tau(stage.depth - 1, stage.num_stages), self.reduction)

    def stage_head(self, stage: StagePlace, head: Any) -> Any:
        """Give the head that the other method wants, or the given one."""
        return self._under.stage_head(stage, head)

    def stage_predicts(self, stage: StagePlace) -> bool:
        """Say what the other method says."""
        return self._under.stage_predicts(stage)

    def stage_layers(self, stage: StagePlace) -> Mapping[str, Any]:
        """Give the other method's nets."""
        return self._under.stage_layers(stage)

    def stage_losses(self, step: StageBatch) -> dict[str, Tensor]:
        """Give the terms and, where the stage has residual blocks, its weighted energy."""
        losses = dict(self._under.stage_losses(step))
        if "energy" in step.layer_losses:
            weighted = step.layer_losses["energy"]
            # A method may have a use of its own for the energy.
            losses["energy"] = losses["energy"] + weighted if "energy" in losses else weighted
        return losses

    def get_config(self) -> dict[str, Any]:
        """Give the configuration."""
        rule = keras.saving.serialize_keras_object(self.rule) if callable(self.rule) else self.rule
        on = None if self.on is None else keras.saving.serialize_keras_object(self.on)
        return {"tau": self.tau, "reduction": self.reduction, "rule": rule, "on": on}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TRGL":
        """Make the method from `get_config`'s result."""
        made = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("rule", "on")
            if isinstance(config.get(name), dict)
        }
        return cls(**{**config, **made})


def _check_adds_to(on: Any) -> None:
    """Raise unless an energy can be added to what a method minimises.

    Raises:
        TypeError: it is no local method.
        ValueError: it has a regulariser of its own.
    """
    if on is None:
        return
    late = isinstance(on, DelayedMethod)
    if not isinstance(on, LocalMethod) or not on.cuts_gradient or late:
        raise TypeError(
            "`on` must be a local method, whose stages learn one by one. Received: "
            f"on={short(on)}. Give an object, such as `on=InfoPro()`."
        )
    if type(on).stage_regularizer is not LocalMethod.stage_regularizer:
        raise ValueError(
            "`on` must leave the regulariser to `TRGL`: a stage has one. Received: "
            f"on={on!r}, which has its own. Give the τ of this one, or leave it out."
        )


def _check_registered(rule: Any) -> None:
    """Raise unless a saved model can find the function by its name."""
    found = None
    if getattr(rule, "__name__", "<lambda>") != "<lambda>":
        found = keras.saving.get_registered_object(keras.saving.get_registered_name(rule))
    if found is not rule:
        raise ValueError(
            "A function as `rule` must be registered, so that a saved model finds it by its name. "
            f"Received: rule={rule!r}. Define it by `def` under "
            '`@keras.saving.register_keras_serializable("my_package")`.'
        )
