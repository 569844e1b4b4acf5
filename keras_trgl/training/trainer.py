"""What trains a model: its compiled steps, and one call of `fit`.

A plain object that a `GreedyModel` holds and hands over to. It asks the model for what Keras keeps
there: the strategy, the compile settings, the train function.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_trgl.checks import check_integer
from keras_trgl.feeding.batch_forms import filled, leaves_of, open_spec
from keras_trgl.feeding.training_data import (
    check_labels,
    check_ready,
)
from keras_trgl.network.passing import together
from keras_trgl.network.staged_network import StagedNetwork
from keras_trgl.regimes.buffered import Buffered
from keras_trgl.regimes.regime import Regime
from keras_trgl.seeds import PICKS, derive_seed
from keras_trgl.training.best_weights import BestWeights
from keras_trgl.training.compiled_steps import CompiledSteps
from keras_trgl.training.delayed_step import check_regime, rate_factors
from keras_trgl.training.given_callbacks import GivenCallbacks
from keras_trgl.training.labels import check_form, ignored_class, in_range
from keras_trgl.training.loss_form import check_loss_form
from keras_trgl.training.micro_batches import check_parts
from keras_trgl.training.optimizers import StageOptimizers
from keras_trgl.training.subclass_hooks import SubclassHooks
from keras_trgl.training.training_run import TrainingRun

SETTINGS = ("loss", "loss_weights", "metrics", "weighted_metrics")
"""Arguments of `compile` that every exit gets."""


class Trainer:
    """Compiles, trains and evaluates the stages of one model.

    Args:
        model: the model, whose Keras settings count.
        network: its stages and heads.
        regime: when stages step.
        base: the class whose methods are no override of the user's.

    Attributes:
        network: as given.
        regime: as given.
        steps: the stages' compiled steps; none before `compile`.
        run: where a call of `fit` stands, or `None` outside one.
        best: weights of best epochs, where the regime's `stop` restores them, or `None`.
    """

    def __init__(
        self, model: keras.Model, network: StagedNetwork, regime: Regime, base: type
    ) -> None:
        self.steps = CompiledSteps()
        check_regime(network.method, regime)
        self.run: TrainingRun | None = None
        self.best: BestWeights | None = None
        self.hooks = SubclassHooks(model, base)
        self._model = model
        self.network = network
        self.regime = regime
        self._evaluating = False

    def compile(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make the stages' steps, and give the arguments for Keras's own `compile`.

        Args:
            given: the local variables of the model's `compile`, with a name for each argument.
        """
        network, optimizer = self.network, given["optimizer"]
        check_integer("steps_per_execution", given["steps_per_execution"], 1)
        parts = {name: given[name] for name in ("micro_batches", "remat")}
        check_parts(given["micro_batches"], given["jit_compile"], network.placement)
        settings = {name: given[name] for name in SETTINGS}
        loop = {name: given[name] for name in ("run_eagerly", "steps_per_execution")}
        # "auto" is off: XLA orders the stages as it likes, and memory is not saved.
        loop["jit_compile"] = given["jit_compile"] is True
        on = None if network.placement.strategy is None else network.placement.on
        if optimizer is None:
            # As in Keras: a model that is evaluated needs none.
            self.steps = CompiledSteps(network, [None] * network.num_stages, self.hooks, **settings)
            self.steps.compiled_with = {"optimizer": None, **settings, **loop, **parts}
            return {"optimizer": None, "auto_scale_loss": False, **loop}
        optimizers = StageOptimizers.from_template(optimizer, network.num_stages, on)
        optimizers.multiply_rates(rate_factors(network.method, network.num_stages))
        if given["auto_scale_loss"] and self._model.dtype_policy.name == "mixed_float16":
            optimizers.scale_losses()
        check_loss_form(given["loss"], network.heads)
        self.steps = CompiledSteps(network, optimizers.optimizers, self.hooks, **parts, **settings)
        optimizers.bind(self.steps.trainable_variables, self._unsettled)
        self.steps.compiled_with = {"optimizer": optimizers, **settings, **loop, **parts}
        # Losses and metrics live in the steps: Keras's own loop sees the optimizer alone.
        return {"optimizer": optimizers, "auto_scale_loss": False, **loop}

    def _unsettled(self) -> Sequence[int]:
        return range(self.network.num_stages) if self.run is None else self.run.unsettled

    def settle(self) -> None:
        """Move what was made before the stages' devices were known."""
        self.steps.settle(self.network.placement)

    def task_loss(self, **asked: Any) -> Any:
        """Give the compiled loss of the exit that speaks now, or of the last depth.

        Args:
            **asked: as in `keras.Model.compute_loss`.
        """
        return self._exit().compute_loss(**asked)

    def update_metrics(self, *asked: Any) -> None:
        """Update the compiled metrics of the exit that speaks now, or of the last depth."""
        self._exit().compute_metrics(*asked)

    def _exit(self) -> Any:
        check_ready(self._model, has_loss=self.hooks.overrides_loss)
        return self.hooks.exit or self.steps.steps[-1].exit

    @property
    def key(self) -> tuple[Any, ...]:
        """The stages that step, and the one that batches enter at."""
        if self.run is None:
            return self.regime.plan(self.network.num_stages), 0
        return self.run.key

    @property
    def stored(self) -> Any:
        """The step that takes batches from stores, if it is to be taken now.

        A single batch outside `fit` goes through all stages of the parallel regime at once.
        """
        # The buffered regime is what it is outside `fit` too: its stores are the model's state.
        in_fit = self.run is not None or isinstance(self.regime, Buffered)
        return self.steps.stored if in_fit or self.steps.is_delayed else None

    def use_stores(self, spec: Any, batch_size: int | None, goes_on: bool) -> bool:
        """Put stores between the stages, where they are needed; tell if traces are of no more use.

        Args:
            spec: structure of `tf.TensorSpec`, a batch, or `None` if it is not known.
            batch_size: int, or `None` if it is not known.
            goes_on: bool. Whether what is stored is kept, where it fits.
        """
        seed, skews = derive_seed(self.network.seed, PICKS), self.network.placement.skews
        use = self.steps.use_stores
        return use(self.regime, spec, seed, batch_size, goes_on, skews, self.take)

    def end_run(self) -> None:
        """Forget the run, and what is in flight in it."""
        self.run = None
        if self.steps.is_delayed and self.steps.stored is not None:
            self.steps.stored.clear()

    def train_on(self, data: Any) -> dict[str, Any]:
        """Let the stages that the regime plans step on one batch, and give the logs."""
        (x, y, sample_weight), needs_data = self._unpack(data), self.steps.needs_data
        (plan, level), told = self.key, dict[str, Any]()
        if level == 0:
            features = given = self.take(x)
        else:
            sides, given = x if needs_data else (x, x)
            features = together(sides)
        rest = (y, sample_weight, given if needs_data else None)
        if self.steps.is_delayed and self.stored is None:
            # A batch outside `fit`: what is in flight is the model's until one begins.
            with tf.init_scope():
                given = (x, y, sample_weight)
                specs = [open_spec(tf.convert_to_tensor(one)) for one in leaves_of(given)]
                self.use_stores(filled(given, specs), None, True)
        if self.stored is not None:
            self.stored((features, *rest))
        for k in range(level, max(plan) + 1) if self.stored is None else ():
            step = self.steps.steps[k]
            if k in plan:
                features = step.train((features, *rest), hands_on=k < max(plan))
            else:
                features = step.pass_on(features, training=self.regime.frozen == "train")
        step = self.steps.steps[max(plan)]
        if self.hooks.overrides_metrics and step.part.predicts:
            told = self.hooks.metrics(step.exit, given, y, step.prediction, sample_weight)
        return {**self.results(), **told}

    def evaluate_on(self, data: Any) -> dict[str, Any]:
        """Evaluate every depth on one batch, and give the logs."""
        x, y, sample_weight = self._unpack(data)
        x = self.take(x)
        rest = (y, sample_weight, x if self.steps.needs_data else None)
        features, told = x, dict[str, Any]()
        with self.evaluating():
            speaker = self.speaker
            for step in self.steps.steps:
                features = step.evaluate((features, *rest), speaks=step is speaker)
            if self.hooks.overrides_metrics and speaker.part.predicts:
                told = self.hooks.metrics(speaker.exit, x, y, speaker.prediction, sample_weight)
            return {**self.results(), **told}

    def results(self) -> dict[str, Any]:
        """Give loss and metrics of the depth that speaks, every stage's, and a subclass's own."""
        plan = range(self.network.num_stages) if self._evaluating else self.key[0]
        results = self.steps.results(not self._evaluating, plan, self.speaker)
        for metric in self.own_metrics:
            value = metric.result()
            results.update(value if isinstance(value, dict) else {metric.name: value})
        return results

    @property
    def speaker(self) -> Any:
        """The step whose results have no prefix.

        In `fit` it is the deepest one in training, in validation too: `loss` and `val_loss`
        speak of the same depth. Elsewhere it is the last depth's in evaluation.
        """
        last = self._evaluating and self.run is None
        return self.steps.steps[-1 if last else max(self.key[0])]

    def drained_results(self) -> dict[str, Any]:
        """Give the results of all batches: Keras asks for them at the end of an epoch."""
        if not self._evaluating:
            self._model.drain()
        return self.results()

    @property
    def own_metrics(self) -> list[Any]:
        """Metrics that a subclass, or a user's layer, keeps as attributes."""
        held = {id(metric) for metric in self.steps.metrics}
        return [metric for metric in self._model.metrics if id(metric) not in held]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Let results speak of every depth in evaluation, not of the stages that train."""
        before, self._evaluating = self._evaluating, True
        try:
            yield
        finally:
            self._evaluating = before

    @contextlib.contextmanager
    def evaluating_data(
        self, args: Any, kwargs: dict[str, Any], callbacks: GivenCallbacks
    ) -> Iterator[dict[str, Any]]:
        """Check the data of an evaluation, and give Keras's own call its named arguments.

        Args:
            args: positional arguments of `evaluate`.
            kwargs: named ones.
            callbacks: the package's, for the progress bar.

        Raises:
            ValueError: labels out of range.
        """
        check_ready(self._model, has_loss=self.hooks.overrides_loss)
        self.network.check_form(args, kwargs)
        if len(args) > 1 or "y" in kwargs:
            self.check_labels(args[1] if len(args) > 1 else kwargs["y"], "y")
        if "callbacks" not in kwargs and len(args) < 7:
            bar = callbacks.with_progbar(kwargs.get("verbose", "auto"))
            kwargs = {**kwargs, "callbacks": bar}
        self.drain()
        with self.evaluating():
            yield kwargs

    def last_depth(self, logs: dict[str, Any]) -> Any:
        """Give what `evaluate` returns without `return_dict`: the deepest trained stage's."""
        if not logs:
            # Of no rows, as in Keras.
            return []
        values = [logs[name] for name in self.names_of_last_depth()]
        return values[0] if len(values) == 1 else values

    def names_of_last_depth(self) -> list[str]:
        """Give the names of what `evaluate` gives in its list."""
        names: list[str] = []
        # Stages that never stepped have no metrics yet: the deepest that has some speaks.
        spoke = [] if self.run is None else [self.speaker]
        for step in [*spoke, *reversed(self.steps.steps)]:
            if not step.part.predicts:
                continue
            with contextlib.suppress(ValueError):
                names = list(step.exit.get_metrics_result())
                break
        return names

    def _unpack(self, data: Any) -> tuple[Any, Any, Any]:
        model = self._model
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if not model.built:
            # Variables made inside a trace would be the trace's own.
            with tf.init_scope():
                self.build_for(x)
        self.check_form(y)
        if isinstance(y, (list, tuple)) and len(y) == 1:
            y = y[0]
        # XLA has no assertions: it would leave the check out in silence.
        if self.steps.has_class_indices and tf.is_tensor(y) and not model.jit_compile:
            y = in_range(y, self.units, ignored_class(self.steps.loss))
        return x, y, sample_weight

    def build_for(self, x: Any) -> None:
        """Build the model and its optimizers, where they are not built yet.

        Args:
            x: data of a batch, tensors or their specs, or `None` where shapes are not known.
        """
        model = self._model
        if x is not None and not model.built:
            model.build((None, *keras.tree.flatten(x)[0].shape[1:]))
        if model.built and model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build([])

    def take(self, x: Any) -> Any:
        """Give the data of a batch as the first stage takes them."""
        return self.network.door.take(x, self.network.input_shape)

    @property
    def units(self) -> int:
        """Numbers in a prediction of the last depth."""
        return int(self.network.output_shape(self.network.input_shape or ())[-1] or 0)

    def check_form(self, y: Any) -> None:
        """Raise where no loss takes such labels; a subclass's own loss takes any.

        Args:
            y: tensor or `tf.TensorSpec` of a batch of labels, or what the data have in its place.

        Raises:
            ValueError: it takes none.
        """
        if not self.hooks.overrides_loss:
            units = int(getattr(self.network.heads[-1], "units", 0))
            check_form(y, self.steps.loss, self.steps.has_class_indices, units)

    def check_labels(self, y: Any, where: str) -> None:
        """Raise if class indices in an array are out of range.

        Raises:
            ValueError: they are.
        """
        if self._model.built and self.steps.has_class_indices:
            check_labels(y, self.units, where, ignored_class(self.steps.loss))

    def train_function(self, make: Callable[..., Any]) -> Any:
        """Give what `fit` calls for every execution: a traced function per plan of the regime.

        Args:
            make: Keras's own `make_train_function`.
        """
        functions: dict[Any, Any] = {}
        if self.steps.stored is not None:
            self.steps.stored.retrace()

        def train_function(iterator: Any) -> Any:
            run = self.run
            if run is not None and run.leaves_out(iterator):
                return self.results()
            traced = self._traced(functions, (self.key, self.stored), make, "train_function")
            if run is None:
                return traced(iterator)
            logs = traced(run.feed.iterator(iterator))
            run.count()
            return logs

        return train_function

    def _traced(
        self, functions: dict[Any, Any], key: Any, make: Callable[..., Any], name: str
    ) -> Any:
        """Give the function of a key, made by Keras if it is the first of it.

        Args:
            functions: dict of those made so far; takes the new one.
            key: what the trace depends on.
            make: Keras's own maker of the function.
            name: str. The model's attribute that Keras puts it in, which holds ours.
        """
        if key not in functions:
            # Keras keeps what it makes in the attribute, from where ours is called.
            outer = getattr(self._model, name)
            make(force=True)
            functions[key] = getattr(self._model, name)
            setattr(self._model, name, outer)
        return functions[key]

    def test_function(self, make: Callable[..., Any]) -> Any:
        """Give what `evaluate` calls for every execution.

        It is traced once: what has no prefix is named anew for the stage that speaks now.

        Args:
            make: Keras's own `make_test_function`.
        """
        functions: dict[Any, Any] = {}

        def test_function(iterator: Any) -> Any:
            with self.evaluating():
                speaker = self.speaker
            # What a subclass makes of a prediction is part of the trace.
            key = speaker.depth if self.hooks.overrides_metrics else None
            logs = self._traced(functions, key, make, "test_function")(iterator)
            return self._spoken_by(speaker, logs) if key is None else logs

        return test_function

    def _spoken_by(self, speaker: Any, logs: dict[str, Any]) -> dict[str, Any]:
        """Give logs whose entries without a prefix are those of one stage."""
        prefixes = [f"stage_{step.depth}_" for step in self.steps.steps]
        # A subclass's own tracker may be called as a stage's metric: its value stays.
        owns = {metric.name for metric in self.own_metrics}
        named = {key: p for p in prefixes for key in logs if key.startswith(p)}
        old = {key.removeprefix(p) for key, p in named.items()} - owns
        mine = f"stage_{speaker.depth}_"
        new = {key.removeprefix(p): logs[key] for key, p in named.items() if p == mine}
        rest = {key: value for key, value in logs.items() if key in named or key not in old}
        return {**new, **rest}

    def drain(self) -> None:
        """Let later stages train on the batches that are on their way to them."""
        if self.steps.stored is not None:
            self.steps.stored.drain_all(self._model.run_eagerly)

    def state_variables(self) -> dict[str, list[Any]]:
        """Give all variables that training changes, by group, in a fixed order."""
        model, stored = self._model, self.steps.stored
        best = {} if self.best is None else {"best weights": self.best.variables}
        return {
            **best,
            "model": list(model.variables),
            "metrics": [variable for one in model.metrics for variable in one.variables],
            "optimizer": list(model.optimizer.variables),
            "stores": [] if stored is None else stored.variables,
        }

    def find_loss_names(self, spec: Any) -> None:
        """Learn what the method logs, before a step is traced.

        Args:
            spec: structure of `tf.TensorSpec`, a batch, or `None` if it is not known.
        """
        if self._model.built:
            with self._model.distribute_strategy.scope():
                self.steps.find_loss_names(spec)
