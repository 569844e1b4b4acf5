"""The method of multipliers: the weight of the energy falls as the task loss adds up."""

from typing import Any

import keras

from keras_trgl.checks import check_choice, check_integer, check_positive, check_tau
from keras_trgl.network.no_head import NoHead
from keras_trgl.recording import shown
from keras_trgl.registration import public
from keras_trgl.training.stage_objective import MultiplierScheme

SCALINGS = ("energy", "loss")


@public
class MultiplierUpdate(keras.callbacks.Callback):
    """Moves each stage's multiplier: λ_k ← λ_k + h·L_k at every s-th batch of the stage.

    L_k is the task loss of the very batch about to be used, before its gradient (the published
    code's timing; the paper writes the next batch), label smoothing included, energy not, the
    mean over the global batch. It happens inside the training step, so it is exact with
    several steps per execution, gradient accumulation and replicas. Batches are counted from 1,
    those whose update a loss scale skips included.

    λ_k starts anew at every visit of a stage. Logs get `stage_k_multiplier`, λ_k, and
    `stage_k_tau`, λ_k/2; so do `CSVLogger` and `TensorBoard`. λ_k is part of the model's weights,
    so files and backups hold it. After training the energy keeps its last weight, 1/λ_k.

    Args:
        h: float > 0. Step of the multiplier, per unit of task loss.
        s: int ≥ 1. Batches between two steps.
        initial: float > 0 or `None`. λ_k at the start; `None` is 2τ_k of the method. Defaults to
            `None`.
        scaling: `"energy"`: stages minimise L + E/λ (published code), so the task's gradient
            keeps its size. `"loss"`: λL + E (the paper's formula). Defaults to `"energy"`.
        record_steps: bool. Whether to keep every step's batch number, loss and λ in `steps`.
            Defaults to `False`.

    Attributes:
        steps: dict of depth k to a list of (batch number, loss, λ used), with `record_steps`.

    Raises:
        ValueError: a number out of range or another word; in `fit`, a method without energy,
            or `record_steps` with `jit_compile=True` or with stages on remote devices.

    Example:
        >>> import keras_trgl as trgl
        >>> callback = trgl.callbacks.MultiplierUpdate(h=1.0, s=50, initial=1.0)
        >>> callback.h, callback.s
        (1.0, 50)

    Reference:
        Karkar et al., "Module-wise Training of Neural Networks via the Minimizing Movement
        Scheme", NeurIPS 2023, section 3.4 (method of multipliers).
    """

    async_safe = True
    """It does nothing between batches."""

    def __init__(
        self,
        h: float,
        s: int,
        initial: float | None = None,
        scaling: str = "energy",
        record_steps: bool = False,
    ) -> None:
        super().__init__()
        check_positive("h", h, "For a fixed weight leave the callback out.")
        check_integer("s", s, 1)
        if initial is not None:
            check_positive("initial", initial, "`None` starts at 2τ.")
            check_tau("initial / 2", float(initial) / 2, "It is τ at the start.")
        check_choice("scaling", scaling, SCALINGS)
        self.h = h
        self.s = int(s)
        self.initial = initial
        self.scaling = scaling
        self.record_steps = bool(record_steps)
        self.steps: dict[int, list[tuple[int, float, float]]] = {}
        self._records: dict[int, Any] = {}

    def __repr__(self) -> str:
        return shown(self)

    def scheme(self, depth: int) -> MultiplierScheme:
        """Give what the step of stage k is told.

        Args:
            depth: int, k = 1…K.

        Returns:
            `MultiplierScheme`.
        """
        record = None
        if self.record_steps:
            record = self._records.setdefault(depth, _Record(self.steps, depth))
        return MultiplierScheme(self.h, self.s, self.scaling, record)

    def set_model(self, model: Any) -> None:
        """Take the model.

        Raises:
            ValueError: the model's method has no energy, or steps cannot be recorded under XLA.
        """
        if all(getattr(s, "regularizer", None) is None for s in getattr(model, "stages", [])):
            raise ValueError(
                "`MultiplierUpdate` moves the weight of the energy, so a stage must have one. "
                "Received: a model without. Train a `GreedyModel` of residual blocks with "
                "`method=TRGL(…)`."
            )
        without = [one.depth for one in getattr(model, "heads", []) if isinstance(one, NoHead)]
        if without:
            raise ValueError(
                "`MultiplierUpdate` moves by the task loss, so every stage must have one. "
                f"Received: {model.method!r}, which trains no head at depth "
                f"{', '.join(map(str, without))}. Leave the callback out; the energy keeps 1/(2τ)."
            )
        if self.record_steps and model.jit_compile:
            raise ValueError(
                "`record_steps` calls Python from the step, which XLA cannot. Received: "
                "jit_compile=True. Leave one of them out."
            )
        placement = getattr(model, "placement", None)
        if self.record_steps and getattr(placement, "is_remote", False):
            raise ValueError(
                "`record_steps` calls Python from the step, which workers in other processes "
                "cannot. Received: stages on remote devices. Leave `record_steps` out; logs have "
                "every multiplier."
            )
        super().set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin new records."""
        for rows in self.steps.values():
            rows.clear()

    def get_state(self) -> dict[str, Any]:
        """Give what a backup keeps: the records.

        Returns:
            dict.
        """
        return {"steps": {depth: list(rows) for depth, rows in self.steps.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`'s result.

        Args:
            state: dict, as `get_state` gave it.
        """
        for depth, rows in state["steps"].items():
            self.steps.setdefault(depth, [])[:] = rows


class _Record:
    """Appends the steps of one stage to a list."""

    def __init__(self, steps: dict[int, list[tuple[int, float, float]]], depth: int) -> None:
        self._rows = steps.setdefault(depth, [])

    def __call__(self, batch: Any, loss: Any, multiplier: Any) -> None:
        self._rows.append((int(batch), float(loss), float(multiplier)))
