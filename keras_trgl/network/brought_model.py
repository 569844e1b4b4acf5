"""What `GreedyModel` has from a model that a user brought: made, shown, saved, given back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.methods.by_name import get_method
from keras_trgl.network.bringing import copied
from keras_trgl.network.cut_table import CutTable
from keras_trgl.network.from_model import CutModel, split_model
from keras_trgl.network.ownership import bring_home, head_recipes, recipe_of
from keras_trgl.network.same_features import check_same
from keras_trgl.network.shows_network import ShowsNetwork
from keras_trgl.recording import made_from
from keras_trgl.regimes.by_name import get_regime
from keras_trgl.types import StagePlacement

TOP = "top"
"""The last head, where it is the model's own classifier."""


@dataclasses.dataclass
class Brought:
    """A user's model, and how it was cut. A plain object, out of Keras's sight.

    Attributes:
        cut: `CutModel`.
        asked: what `from_model` was asked for: `residuals`, `on_no_residual`, `head_input`.
    """

    cut: CutModel
    asked: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """Give what a file needs to cut the model again."""
        model = dict(keras.saving.serialize_keras_object(self.cut.model))
        model.pop("compile_config", None)
        names = [self.cut.flat.calls[place].name for place in self.cut.places]
        units = [unit.name for stage in self.cut.stages for unit in stage.residual_units]
        return {
            "model": model,
            "places": [[place, name] for place, name in zip(self.cut.places, names, strict=True)],
            "units": units,
            "with_top": self.cut.top is not None,
            **self.asked,
        }


class BroughtModel(ShowsNetwork):
    """A model that may be made of a user's Keras model, over the user's own layers.

    A member takes stages and heads in its constructor.
    """

    _brought: Brought | None = None

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        cuts: Any,
        head: Any,
        residuals: Any = "auto",
        on_no_residual: str = "warn",
        share: bool = True,
        head_input: str | None = None,
        check: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Cut a Keras model into stages over its own layers; sums x + r(x) count, wherever made.

        A unit ends at a sum, with the activation or normalization after it; a layer that adds
        inside is one unit; in a model without sums a layer with weights is. Whatever later layers
        need crosses a cut, skips and side inputs too; heads read the main tensor, the output of
        the stage's last sum, else of its last layer with weights. Models nested in the model are
        written out, and layers that only call others. A model with a `call` of its own is run on
        symbolic tensors; its `call` must not ask whether it trains.

        Args:
            model: `keras.Model`, built, without its own classifier (`include_top=False`) unless
                that is the last head. Data come as it takes them, of several inputs too.
            cuts: int K ≥ 1, for stages of nearly equal numbers of residuals, cut where as little
                crosses as allows that; or list of K sizes in units; or list of the names of
                the K - 1 layers after which to cut.
            head: an unbuilt layer, copied for every stage, or a list of K layers, the last of
                which may be `"top"`, the model's own classifier.
            residuals: `"auto"`, or a dict of a sum's name to the name of the layer whose output
                is its residual, or to `None` to leave it out. Defaults to `"auto"`.
            on_no_residual: str, of a stage without residuals: `"warn"`, `"raise"`, or
                `"distance"`, T(x) - x of every unit that keeps the shape. Defaults to `"warn"`.
            share: bool. Whether the model's own layers are trained, in place; with `False` a copy
                is. Defaults to `True`.
            head_input: str, the layer whose output is the last stage's features, or `None` for
                the output of highest rank. Defaults to `None`.
            check: bool. Whether two examples go through model and stages, which must agree.
                Defaults to `True`.
            **kwargs: the constructor's: `method`, `regime`, `seed`, `name`.

        Returns:
            `GreedyModel`, built.

        Raises:
            ValueError: the model cannot be read, traced, or cut so; a stage would have no weights
                or share them; `share=True` with stages that are moved; or the stages compute
                something else than the model.
        """
        if share:
            _check_in_place(model, kwargs)
        with_top = head == TOP or (isinstance(head, (list, tuple)) and TOP in list(head)[-1:])
        source = model if share or not isinstance(model, keras.Model) else copied(model)
        asked: dict[str, Any] = {
            "residuals": dict(residuals) if isinstance(residuals, Mapping) else residuals,
            "on_no_residual": on_no_residual,
            "head_input": head_input,
        }
        cut = split_model(source, cuts, with_top=with_top, **asked)
        heads = _heads(head, cut)
        if check:
            check_same(model, cut)
        if not share:
            bring_home(cut.stages, heads, get_method(kwargs.get("method", "trgl")))
        return cls._made(cut, heads, asked, kwargs)

    @classmethod
    def _made(
        cls, cut: CutModel, heads: list[Any], asked: dict[str, Any], kwargs: dict[str, Any]
    ) -> Any:
        make: Any = cls
        built = make(cut.stages, heads, **kwargs)
        built._brought = Brought(cut, asked)
        return built

    def cut_table(self) -> CutTable:
        """Give a row per stage of the model that was cut; they print as a table.

        Returns:
            List of rows with `depth`, `first` and `last` layer, what `crosses` after it, number
            of `residuals` and of `parameters`, and `bytes`, per example, of what crosses.

        Raises:
            ValueError: the model was not made by `from_model`.
        """
        return self._source("cut_table").table

    def to_keras(self) -> keras.Model:
        """Give the Keras model that was cut, with the weights as they are trained by now.

        Returns:
            `keras.Model`: the very model that `from_model` took, or its copy with `share=False`,
            or, of a loaded model, the one that the file holds.

        Raises:
            ValueError: the model was not made by `from_model`.
        """
        model: keras.Model = self._source("to_keras").model
        return model

    def _source(self, asked: str) -> CutModel:
        if self._brought is None:
            raise ValueError(
                f"`{asked}` speaks of a Keras model that was cut. Received: {self.name}, made of "
                "stages. Use `GreedyModel.from_model(model, cuts, head)`, or `truncate(k)` for a "
                "plain Keras model of k stages."
            )
        return self._brought.cut

    def _made_of(self) -> dict[str, Any]:
        """Give the configuration of stages and heads, or of the model that was cut."""
        given = [part.given_head for part in self._network.parts]
        brought = self._brought
        top = None if brought is None else brought.cut.top
        heads = [TOP if head is top else recipe_of(head, self.built) for head in given]
        if brought is None:
            stages = [recipe_of(stage, self.built) for stage in self.stages]
            return {"stages": stages, "heads": heads}
        return {"brought": brought.config(), "heads": heads}

    @classmethod
    def _brought_again(
        cls, brought: dict[str, Any], config: dict[str, Any], custom_objects: Any
    ) -> Any:
        """Make the model from a configuration that tells of a Keras model: it is cut again.

        Raises:
            ValueError: the model's layers are others than those that were cut.
        """
        brought = dict(brought)
        source = made_from(brought.pop("model"), custom_objects)
        places, units = brought.pop("places"), brought.pop("units")
        with_top = brought.pop("with_top")
        cut = split_model(
            source, [place for place, _ in places], with_top=with_top, at=True, **brought
        )
        found = [unit.name for stage in cut.stages for unit in stage.residual_units]
        if len(found) != len(units):
            raise ValueError(
                f"A file's model must have the residuals that it had when it was saved, "
                f"{len(units)}. Received: {len(found)}, of {source.name}. Load it with the code "
                "that made its layers."
            )
        heads = [cut.top if head == TOP else head for head in config.pop("heads")]
        # A method that does not cut the gradient has one head for all stages, the last.
        heads = [*heads[-1:] * (len(cut.stages) - len(heads)), *heads]
        bring_home(cut.stages, heads, get_method(config.get("method", "trgl")))
        return cls._made(cut, heads, brought, config)

    def save_own_variables(self, store: Any) -> None:
        """Save, beside the model's own, weights of the user's model that no stage calls."""
        super().save_own_variables(store)
        for index, weight in enumerate(self._left_out):
            store[f"{LEFT_OUT}{index}"] = keras.ops.convert_to_numpy(weight)

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved."""
        held = {key: store[key] for key in store.keys()}  # noqa: SIM118, as a store is no dict
        own = {key: value for key, value in held.items() if not key.startswith(LEFT_OUT)}
        super().load_own_variables(own)
        for index, weight in enumerate(self._left_out):
            if f"{LEFT_OUT}{index}" in held:
                weight.assign(held[f"{LEFT_OUT}{index}"])

    @property
    def _left_out(self) -> list[Any]:
        return [] if self._brought is None else self._brought.cut.left_out


LEFT_OUT = "left_out_"
"""Begins the names, in files, of weights that no stage calls."""


def _heads(head: Any, cut: CutModel) -> list[Any]:
    """Give a head or recipe per stage, the model's own classifier where it is asked for.

    Raises:
        ValueError: `"top"` stands for more than the last stage.
    """
    is_text = isinstance(head, str)
    if is_text and (head != TOP or len(cut.stages) > 1):
        raise ValueError(
            "`head='top'` is the model's own classifier, for the last stage alone. Received: "
            f"head={head!r} for {len(cut.stages)} stages. Give a list: "
            "`[heads.LinearHead(10), …, 'top']`."
        )
    if head == TOP:
        return [cut.top]
    heads = head_recipes(head, len(cut.stages))
    if TOP in [one for one in heads[:-1] if isinstance(one, str)]:
        raise ValueError(
            "'top' can be the last head alone. Received: it stands before others. Give earlier "
            "stages heads of their own."
        )
    return [cut.top if isinstance(one, str) and one == TOP else one for one in heads]


def _check_in_place(model: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise where stages would be moved away from the user's model.

    Raises:
        ValueError: a strategy that places stages, or `idle_device`; or a strategy with replicas
            outside whose scope the model was made.
    """
    way_out = "`share=False` trains a copy."
    strategy: Any = tf.distribute.get_strategy()
    if isinstance(strategy, StagePlacement):
        raise ValueError(
            "A model is trained in place where it is; a strategy that places stages would move "
            f"its layers. Received: share=True inside `{type(strategy).__name__}`. {way_out}"
        )
    idle = get_regime(kwargs.get("regime", "parallel")).idle_device
    if idle is not None:
        raise ValueError(
            "A model is trained in place where it is; `idle_device` would move its layers. "
            f"Received: share=True with idle_device={idle!r}. {way_out}"
        )
    weights = getattr(model, "weights", [])
    made_here = all(
        strategy.extended.variable_created_in_scope(weight.value) for weight in weights[:1]
    )
    if tf.distribute.has_strategy() and not made_here:
        raise ValueError(
            "A model is trained in place under the strategy that it was made under. Received: "
            f"{model.name}, made outside the scope of `{type(strategy).__name__}`. Make it "
            f"inside, or: {way_out}"
        )
