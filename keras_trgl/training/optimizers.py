"""One optimizer per stage behind one Keras optimizer."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_trgl.recording import shown
from keras_trgl.registration import public
from keras_trgl.types import Tensor

Variables = list[Any]
On = Callable[[int], Any]
"""Gives the context in which what belongs to stage k, counted from 0, is made."""


def anywhere(k: int) -> Any:
    """Give a context that changes nothing."""
    del k
    return contextlib.nullcontext()


def _copy_decay_exclusions(template: Any, copy: Any) -> None:
    """Give `copy` the variables that `template` excludes from weight decay.

    Keras keeps them in private attributes and in no configuration; this is the one place that
    reads them, and a test sees that a scale does not decay.
    """
    template, copy = _inside_loss_scale(template), _inside_loss_scale(copy)
    for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(template, name):
            setattr(copy, name, getattr(template, name))


def _inside_loss_scale(optimizer: Any) -> Any:
    """Give the optimizer that a `LossScaleOptimizer` wraps, or the optimizer itself."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.inner_optimizer
    return optimizer


def copy_optimizer(template: keras.optimizers.Optimizer, name: str) -> keras.optimizers.Optimizer:
    """Give an unbuilt optimizer with the settings of `template`."""
    config = {**template.get_config(), "name": name}
    copy = type(template).from_config(config)
    _copy_decay_exclusions(template, copy)
    return copy


@public
class StageOptimizers(keras.optimizers.Optimizer):
    """K optimizers, one per stage, that Keras and its callbacks see as one.

    Schedules, `ReduceLROnPlateau`, clipping, moving averages and weight decay act per stage:
    `global_clipnorm`, for one, is the norm of one stage's gradients.

    Args:
        optimizers: list of unbuilt Keras optimizers, one per stage.
        name: str. Name for logs and files. Defaults to `"stage_optimizers"`.

    `learning_rate` reads the last stage's and sets all of them; each one's own is
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
        super().__init__(learning_rate=0.0, name=name)
        self.optimizers = list(optimizers)
        self._variables_of: Callable[[int], Variables] | None = None
        self._known: dict[int, list[int]] = {}
        self._on: On = anywhere

    def __repr__(self) -> str:
        return shown(self)

    @classmethod
    def from_template(
        cls, optimizer: Any, num_stages: int, on: On | None = None
    ) -> "StageOptimizers":
        """Give one copy of `optimizer` per stage, or a list of K, as one optimizer.

        Args:
            optimizer: anything `keras.optimizers.get` takes, a list of K of those, or a
                `StageOptimizers`.
            num_stages: int ≥ 1, K.
            on: function of k, counted from 0, that gives the context in which stage k's
                optimizer is made, also those of a list; `None` makes a single one's copies
                anywhere, and takes those of a list as they are. Defaults to `None`.

        Returns:
            `StageOptimizers`.

        Raises:
            ValueError: a list of another length, or an optimizer that was built elsewhere.
        """
        if isinstance(optimizer, (list, tuple)):
            chosen = [keras.optimizers.get(one) for one in optimizer]
        elif isinstance(optimizer, cls):
            chosen = list(optimizer.optimizers)
        else:
            template = keras.optimizers.get(optimizer)
            _check_unbuilt(template)
            return cls._made([template] * num_stages, on)
        if len(chosen) != num_stages:
            raise ValueError(
                f"`optimizer` must be one optimizer or a list of {num_stages}, one per stage. "
                f"Received: {len(chosen)} optimizers."
            )
        if isinstance(optimizer, cls) and on is None:
            return optimizer
        for one in chosen:
            _check_unbuilt(one)
        if len({id(one) for one in chosen}) != num_stages:
            raise ValueError(
                "Every stage needs an optimizer of its own. Received: the same one twice in "
                f"{chosen}. Give a single optimizer to have it copied."
            )
        return cls(chosen) if on is None else cls._made(chosen, on)

    @classmethod
    def _made(cls, templates: Sequence[Any], on: On | None) -> "StageOptimizers":
        copies = []
        for k, template in enumerate(templates):
            with (on or anywhere)(k):
                copies.append(copy_optimizer(template, f"stage_{k + 1}"))
        made = cls(copies)
        made._on = on or anywhere
        return made

    def scale_losses(self) -> None:
        """Give every stage a loss scale of its own, for `mixed_float16`."""
        for k, one in enumerate(self.optimizers):
            if not isinstance(one, keras.optimizers.LossScaleOptimizer):
                with self._on(k):
                    scaled = keras.optimizers.LossScaleOptimizer(one, name=f"stage_{k + 1}")
                self.optimizers[k] = scaled

    def bind(self, variables_of: Callable[[int], Variables]) -> None:
        """Tell which variables each stage trains.

        Args:
            variables_of: function of k, counted from 0, that gives stage k's variables.

        Raises:
            ValueError: an optimizer was built on others, those of another model.
        """
        for k, one in enumerate(self.optimizers):
            known = self._known.get(k, [])
            if one.built and not all(id(variable) in known for variable in variables_of(k)):
                _check_unbuilt(one)
        self._variables_of = variables_of

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
                self._known[k] = [id(variable) for variable in self._variables_of(k)]
        self.built = True

    def rebuild(self, k: int) -> Any:
        """Make stage k's optimizer anew where its variables are now, with the old one's state.

        A Keras optimizer knows its variables by where they are.

        Args:
            k: int. Position of the stage, from 0.

        Returns:
            The new optimizer.
        """
        old = self.optimizers[k]
        if not old.built or self._variables_of is None:
            return old
        new = copy_optimizer(old, old.name)
        new.build(self._variables_of(k))
        for variable, before in zip(new.variables, old.variables, strict=True):
            variable.assign(before)
        self.optimizers[k] = new
        self._known[k] = [id(variable) for variable in self._variables_of(k)]
        return new

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
        return self.optimizers[-1].learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        for one in self.optimizers:
            one.learning_rate = value

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from the weight decay of every stage, as in Keras.

        Args:
            var_list: list of variables. Defaults to `None`.
            var_names: list of str; variables whose name holds one. Defaults to `None`.
        """
        for one in self.optimizers:
            _inside_loss_scale(one).exclude_from_weight_decay(
                var_list=var_list, var_names=var_names
            )

    def finalize_variable_values(self, var_list: Any) -> None:
        """Let each optimizer write its final values (moving averages) to its own stage."""
        del var_list
        if self._variables_of is not None:
            for k, one in enumerate(self.optimizers):
                one.finalize_variable_values(self._variables_of(k))

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
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "StageOptimizers":
        """Make the optimizers from `get_config`'s result."""
        optimizers = [
            keras.optimizers.deserialize(one, custom_objects=custom_objects)
            for one in config["optimizers"]
        ]
        return cls(optimizers, name=config["name"])


def _check_unbuilt(optimizer: Any) -> None:
    if optimizer.built:
        raise ValueError(
            f"`optimizer` must be new: stages get copies of their own. Received: "
            f"{optimizer.name}, built on other variables. Make a new one with the same settings."
        )
