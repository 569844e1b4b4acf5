"""One optimizer per stage behind one Keras optimizer."""

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_trgl.devices import current_device, move_variables
from keras_trgl.recording import shown
from keras_trgl.registration import public
from keras_trgl.training.rates import inside_loss_scale, plain_rate, rate_of_all, set_rate
from keras_trgl.types import Tensor

Variables = list[Any]
On = Callable[[int], Any]
"""Gives the context in which what belongs to stage k, counted from 0, is made."""


def anywhere(k: int) -> Any:
    """Give a context that changes nothing."""
    del k
    return contextlib.nullcontext()


_OF_ITSELF = {"name", "built"}
_SETTINGS = (type(None), bool, int, float, str, tuple, np.generic)
_CONTAINERS = (list, dict, set)


def copy_optimizer(template: keras.optimizers.Optimizer, name: str) -> keras.optimizers.Optimizer:
    """Give a new optimizer with the settings of one that is not built.

    It is copied part by part, not from a configuration, which speaks of registered classes only
    and leaves out the variables that do not decay. Schedules and functions are shared. This is
    the one place that reads what Keras's optimizers keep in private attributes; tests see that
    rates, their types and exclusions from weight decay pass.

    Args:
        template: unbuilt Keras optimizer.
        name: str. The copy's name.

    Raises:
        ValueError: the optimizer made variables in its constructor, or takes arguments in
            `__new__`.
    """
    kind: Any = type(template)
    held = dict(vars(template))
    rate = held["_learning_rate"]
    if isinstance(rate, keras.Variable):
        # Keras takes a Python float for float32 on the way, and so a number of NumPy here.
        rate = np.float64(rate.numpy())
    try:
        made = kind.__new__(kind)
    except TypeError as error:
        raise ValueError(_no_copy(template, f"has a `__new__` with arguments ({error})")) from error
    # The base alone: a member's own `__init__` may take anything.
    keras.optimizers.Optimizer.__init__(made, learning_rate=rate, name=name)
    known = set(vars(made))
    for key, value in held.items():
        if key in known:
            if isinstance(value, _SETTINGS) and key not in _OF_ITSELF and "_self" not in key:
                setattr(made, key, value)
        elif isinstance(value, keras.optimizers.Optimizer):
            setattr(made, key, copy_optimizer(value, value.name))
        elif any(isinstance(one, keras.Variable) for one in keras.tree.flatten(value)):
            raise ValueError(_no_copy(template, f"holds variables ({key}) before it is built"))
        else:
            setattr(made, key, copy.copy(value) if isinstance(value, _CONTAINERS) else value)
    return made


def _no_copy(template: Any, reason: str) -> str:
    return (
        "A single optimizer is copied for every stage. Received: "
        f"{template.name} of type {type(template).__name__}, which {reason}. Give a list with an "
        "optimizer for every stage."
    )


def _schedule_of(optimizer: Any) -> Any:
    """Give the schedule itself, where `learning_rate` is its number of now.

    Private, as in `copy_optimizer`; a test sees a multiplied schedule train.
    """
    return inside_loss_scale(optimizer)._learning_rate


def _parts(optimizer: Any) -> list[Any]:
    """Give the optimizer, and the one that a `LossScaleOptimizer` wraps."""
    inner = inside_loss_scale(optimizer)
    return [optimizer] if inner is optimizer else [optimizer, inner]


def _knows(optimizer: Any, variables: Variables) -> bool:
    """Say whether a built optimizer was built on these variables, and perhaps on others too.

    An optimizer keeps its variables and their keys in private attributes; this function and the
    next are the only ones that touch them, and a test sees a moved optimizer train.
    """
    keys = optimizer._trainable_variables_indices
    return all(optimizer._var_key(one) in keys for one in variables)


def _know_again(optimizer: Any) -> None:
    """Let a built optimizer know its variables after they were moved: their keys are new."""
    known = optimizer._trainable_variables_indices
    held = optimizer._trainable_variables
    keys = {index: optimizer._var_key(one) for index, one in enumerate(held)}
    excluded = getattr(optimizer, "_exclude_from_weight_decay", None)
    if excluded:
        kept = {keys[known[key]] for key in excluded if key in known}
        optimizer._exclude_from_weight_decay = kept
    if hasattr(optimizer, "_exclude_from_weight_decay_cache"):
        optimizer._exclude_from_weight_decay_cache = {}
    optimizer._trainable_variables_indices = {key: index for index, key in keys.items()}


def settle_average(optimizer: Any, variables: Variables) -> None:
    """Give variables their moving averages, if their optimizer has any and stepped.

    Before the first step averages are zero.

    Args:
        optimizer: Keras optimizer.
        variables: list of the variables that it was built on.
    """
    uses = getattr(inside_loss_scale(optimizer), "use_ema", False)
    if uses and optimizer.built and int(optimizer.iterations) > 0:
        optimizer.finalize_variable_values(variables)


@public
class StageOptimizers(keras.optimizers.Optimizer):
    """K optimizers, one per stage, that Keras and its callbacks see as one.

    Schedules, `ReduceLROnPlateau`, clipping, moving averages and weight decay act per stage:
    `global_clipnorm`, for one, is the norm of one stage's gradients.

    Args:
        optimizers: list of Keras optimizers, one per stage.
        name: str. Name for logs and files. Defaults to `"stage_optimizers"`.

    `learning_rate` reads the last stage's and sets all of them, also by `assign`; each one's own is
    `optimizers[k].learning_rate`.

    Raises:
        ValueError: `optimizers` is empty.

    Example:
        >>> import keras
        >>> from keras_trgl.training.optimizers import StageOptimizers
        >>> both = StageOptimizers([keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.25)])
        >>> float(both.learning_rate)
        0.25
    """

    def __init__(
        self,
        optimizers: Sequence[keras.optimizers.Optimizer],
        name: str = "stage_optimizers",
    ) -> None:
        if not optimizers:
            raise ValueError("`optimizers` must hold one per stage. Received: [].")
        # Keras wants a rate here; the property below hides it.
        super().__init__(learning_rate=0.0, name=name)
        self.optimizers = list(optimizers)
        self._variables_of: Callable[[int], Variables] | None = None
        self._unsettled: Callable[[], Sequence[int]] | None = None
        self._on: On = anywhere
        self.rate_factors = [1.0] * len(self.optimizers)
        self._recipe: Any = None
        self._recipe_rate: float | None = None

    def __repr__(self) -> str:
        return shown(self)

    @classmethod
    def from_template(
        cls, optimizer: Any, num_stages: int, on: On | None = None
    ) -> "StageOptimizers":
        """Give an optimizer per stage as one optimizer.

        One that serves a single stage is used as it is; one that serves several is copied.

        Args:
            optimizer: anything `keras.optimizers.get` takes, a list of K of those, or a
                `StageOptimizers`.
            num_stages: int ≥ 1, K.
            on: function of k, counted from 0, that gives the context in which stage k's
                optimizer is made, or to whose device it is moved; `None` leaves them where they
                are. Defaults to `None`.

        Returns:
            `StageOptimizers`.

        Raises:
            ValueError: a list of another length, or an optimizer that was built elsewhere or
                cannot be copied.
            TypeError: a class in place of an optimizer.
        """
        for one in optimizer if isinstance(optimizer, (list, tuple)) else [optimizer]:
            if isinstance(one, type):
                raise TypeError(
                    "`optimizer` must be a name or an optimizer, or a list of one per stage. "
                    f"Received: the class {one.__name__}. Call it: `{one.__name__}(0.01)`."
                )
        if isinstance(optimizer, (list, tuple)):
            chosen = [keras.optimizers.get(one) for one in optimizer]
        elif isinstance(optimizer, cls):
            chosen = list(optimizer.optimizers)
        else:
            chosen = [keras.optimizers.get(optimizer)] * num_stages
        if len(chosen) != num_stages:
            raise ValueError(
                f"`optimizer` must be one optimizer or a list of {num_stages}, one per stage. "
                f"Received: {len(chosen)} optimizers."
            )
        if isinstance(optimizer, cls):
            _check_different(chosen)
            made = optimizer
        else:
            made = cls(cls._own(chosen, on or anywhere))
            if len(chosen) > 1 and not isinstance(optimizer, (list, tuple)):
                made._recipe, made._recipe_rate = chosen[0], plain_rate(chosen[0])
        made._on = on or anywhere
        if on is not None:
            made._bring(on)
        return made

    @staticmethod
    def _own(chosen: Sequence[Any], on: On) -> list[Any]:
        """Give an optimizer that serves one stage as it is, and copies of one that serves more."""
        own = []
        for k, one in enumerate(chosen):
            if sum(one is other for other in chosen) > 1:
                _check_unbuilt(one)
                with on(k):
                    own.append(copy_optimizer(one, f"stage_{k + 1}"))
            else:
                own.append(one)
        return own

    def _bring(self, on: On) -> None:
        """Move what the optimizers have from the start to where their stages live."""
        for k, one in enumerate(self.optimizers):
            if not one.built:
                with on(k):
                    move_variables(one.variables, current_device())

    def scale_losses(self) -> None:
        """Give every stage a loss scale of its own, for `mixed_float16`."""
        for k, one in enumerate(self.optimizers):
            if not isinstance(one, keras.optimizers.LossScaleOptimizer):
                with self._on(k):
                    scaled = keras.optimizers.LossScaleOptimizer(one, name=f"stage_{k + 1}")
                self.optimizers[k] = scaled

    def bind(
        self,
        variables_of: Callable[[int], Variables],
        unsettled: Callable[[], Sequence[int]] | None = None,
    ) -> None:
        """Tell which variables each stage trains.

        Args:
            variables_of: function of k, counted from 0, that gives stage k's variables.
            unsettled: function that gives the positions of the stages whose final values are
                still to be written; `None` is all. Defaults to `None`.

        Raises:
            ValueError: an optimizer was built on others, those of another model.
        """
        for k, one in enumerate(self.optimizers):
            if one.built and not _knows(one, variables_of(k)):
                _check_unbuilt(one)
        self._variables_of, self._unsettled = variables_of, unsettled

    def build(self, variables: Variables) -> None:
        """Build each stage's optimizer on its own variables; the argument is not used."""
        del variables
        if self._variables_of is None:
            raise ValueError(
                "`StageOptimizers` learns its variables from `GreedyModel.compile`. "
                "Received: a build before that. Pass it to `model.compile(optimizer=…)`."
            )
        for k, one in enumerate(self.optimizers):
            if not one.built:
                with self._on(k):
                    one.build(self._variables_of(k))
        self.built = True

    def follow(self, k: int) -> None:
        """Move stage k's optimizer to the device in force, after its stage was moved there.

        It stays the very object, and so do its variables: who keeps it can go on changing it.

        Args:
            k: int. Position of the stage, from 0.
        """
        one = self.optimizers[k]
        if one.built:
            move_variables(one.variables, current_device())
            for part in _parts(one):
                _know_again(part)

    def multiply_rates(self, factors: Sequence[float]) -> None:
        """Let stages learn at multiples of one optimizer's rate; those of a list have their own.

        Args:
            factors: list of K floats > 0.
        """
        if self._recipe is None:
            return
        self.rate_factors = list(factors)
        rate = self._recipe_rate
        rate = _schedule_of(self._recipe) if rate is None else rate
        for one, factor in zip(self.optimizers, factors, strict=True):
            if factor != 1.0:
                set_rate(one, rate, factor)

    def take_up_rate(self) -> None:
        """Take up a rate that was set on the optimizer that the stages' were copied of."""
        if self._recipe is None:
            return
        rate = plain_rate(self._recipe)
        if rate is not None and rate != self._recipe_rate:
            self._recipe_rate = rate
            self.learning_rate = rate

    @property
    def variables(self) -> Variables:
        """The variables of all stages' optimizers, in order."""
        return [variable for one in self.optimizers for variable in one.variables]

    @property
    def iterations(self) -> Any:
        """Steps of the last stage's optimizer."""
        return self.optimizers[-1].iterations

    @property
    def learning_rate(self) -> Any:
        """Rate of the last stage; assigning sets every stage's."""
        return rate_of_all(self.optimizers, self.rate_factors)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        for one, factor in zip(self.optimizers, self.rate_factors, strict=True):
            set_rate(one, value, factor)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from the weight decay of every stage, as in Keras.

        Args:
            var_list: list of variables. Defaults to `None`.
            var_names: list of str; variables whose name holds one. Defaults to `None`.
        """
        for one in self.optimizers:
            inside_loss_scale(one).exclude_from_weight_decay(var_list=var_list, var_names=var_names)

    def finalize_variable_values(self, var_list: Any) -> None:
        """Let optimizers write final values (moving averages) to their own stages.

        Those of stages that are settled stay, as later stages were trained on them.
        """
        del var_list
        asked = self._unsettled
        for k in range(len(self.optimizers)) if asked is None else asked():
            if self._variables_of is not None:
                settle_average(self.optimizers[k], self._variables_of(k))

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Raise: gradients go to one stage's optimizer at a time."""
        raise NotImplementedError(
            "`StageOptimizers` applies no gradients itself. Received: a call of `apply`. "
            "Use `optimizers[k].apply(gradients, variables)` for stage k."
        )

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Give the loss as it is: each stage scales its own.

        Args:
            loss: scalar tensor.

        Returns:
            The same tensor, a scalar.
        """
        return loss

    def save_own_variables(self, store: Any) -> None:
        """Save nothing: the stages' optimizers are saved as children."""

    def load_own_variables(self, store: Any) -> None:
        """Load nothing: the stages' optimizers are loaded as children."""

    def get_config(self) -> dict[str, Any]:
        """Give the configuration of every stage's optimizer."""
        return {
            "name": self.name,
            "optimizers": [keras.optimizers.serialize(one) for one in self.optimizers],
            "rate_factors": self.rate_factors,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "StageOptimizers":
        """Make the optimizers from `get_config`'s result."""
        optimizers = [
            keras.optimizers.deserialize(one, custom_objects=custom_objects)
            for one in config["optimizers"]
        ]
        made = cls(optimizers, name=config["name"])
        # Their rates are multiples by now.
        made.rate_factors = list(config["rate_factors"])
        return made


def _check_different(chosen: Sequence[Any]) -> None:
    if len({id(one) for one in chosen}) != len(chosen):
        raise ValueError(
            "Every stage needs an optimizer of its own. Received: the same one twice in "
            f"{chosen}. Give a single optimizer to have it copied."
        )


def _check_unbuilt(optimizer: Any) -> None:
    if optimizer.built:
        raise ValueError(
            f"`optimizer` must be new, or built on this model's own variables. Received: "
            f"{optimizer.name}, built on other variables. Make a new one with the same settings."
        )
