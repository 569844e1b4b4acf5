"""A model's variables as a tree of paths, each of which is there once.

Keras's own tree takes the variables' paths as they are. They hold the numbers that Keras gives to
names by itself, which are others in a model that was loaded, and the metrics of K stages have the
same: there a tree is assigned in part, or not at all, without a word. Here paths tell the place in
the network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

METRICS = "metrics_variables"
"""Group of the tree that a model which has not trained yet has only a part of."""


def places_of(parts: Sequence[Any]) -> dict[int, str]:
    """Give the place in the network of every variable, by its `id`.

    Args:
        parts: list of `StagePart`.

    Returns:
        dict of `id` to a path such as `stage_1/block_2/kernel`, `stage_1/head/bias`,
        `stage_1/decoder/kernel` for a method's layer `decoder`; each is there once.
    """
    rows: list[tuple[str, Any]] = []
    for k, part in enumerate(parts, start=1):
        here = f"stage_{k}"
        rows += [(f"{here}/block_{j}", one) for j, one in enumerate(part.stage.blocks, start=1)]
        rows += [(f"{here}/head", part.head), (f"{here}/energy", part.stage.regularizer)]
        rows += [(f"{here}/{name}", layer) for name, layer in part.layers.items()]
    found: dict[int, str] = {}
    for place, layer in rows:
        counts: dict[str, int] = {}
        for variable in () if layer is None else layer.variables:
            number = counts[variable.name] = counts.get(variable.name, 0) + 1
            ending = variable.name if number == 1 else f"{variable.name}_{number}"
            found[id(variable)] = f"{place}/{ending}"
    return found


def slots_of(
    optimizers: Sequence[Any], variables: Sequence[Any], places: Mapping[int, str]
) -> dict[int, str]:
    """Give the places of what optimizers keep, by the `id` of each variable.

    Args:
        optimizers: list of K Keras optimizers.
        variables: the model's variables.
        places: what `places_of` gives for those.

    Returns:
        dict of `id` to a path such as `stage_1/iterations` or `stage_1/block_2/kernel/momentum`.
    """
    # Keras names what it keeps of a variable by the variable's path.
    of = [(f"{one.path.replace('/', '_')}_", places.get(id(one))) for one in variables]
    of.sort(key=lambda pair: -len(pair[0]))
    found: dict[int, str] = {}
    for k, optimizer in enumerate(optimizers, start=1):
        for variable in optimizer.variables:
            name, place = variable.name, None
            mine = (pair for pair in of if name.startswith(pair[0]))
            start, place = next(mine, ("", None))
            ending = name.removeprefix(start)
            found[id(variable)] = f"stage_{k}/{ending}" if place is None else f"{place}/{ending}"
    return found


def named_once(variables: Sequence[Any], places: Mapping[int, str]) -> dict[str, Any]:
    """Give variables by paths of which none comes twice, in a fixed order.

    Args:
        variables: sequence of Keras variables.
        places: dict of a variable's `id` to its path; others have their own.
    """
    named: dict[str, Any] = {}
    for variable in variables:
        path = places.get(id(variable), variable.path)
        free, number = path, 1
        while free in named:
            free, number = f"{path}_{number}", number + 1
        named[free] = variable
    return named


def tree_of(named: Mapping[str, Any], value_format: str) -> dict[str, Any]:
    """Give the values of named variables as nested dicts.

    Args:
        named: dict of path to variable.
        value_format: `"backend_tensor"` or `"numpy_array"`.

    Raises:
        ValueError: another format.
    """
    if value_format not in ("backend_tensor", "numpy_array"):
        raise ValueError(
            "`value_format` must be 'backend_tensor' or 'numpy_array'. "
            f"Received: value_format={value_format!r}."
        )
    tree: dict[str, Any] = {}
    for path, variable in named.items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = variable.numpy() if value_format == "numpy_array" else variable.value
    return tree


def assign_trees(groups: Mapping[str, Mapping[str, Any]], trees: Mapping[str, Any]) -> None:
    """Assign the values of trees to named variables, all or none of them.

    Args:
        groups: dict of group to dict of path to variable.
        trees: dict of group to tree of values, which may leave groups and paths out.

    Raises:
        ValueError: a group, a path or a shape that the model does not have.
    """
    pairs: list[tuple[Any, Any]] = []
    for group, tree in trees.items():
        if group not in groups:
            raise ValueError(
                f"A state tree's groups must be among {', '.join(groups)}. Received: {group!r}."
            )
        for path, value in _leaves(tree):
            variable = groups[group].get(path)
            if variable is None and group == METRICS:
                # Metrics are made by the first step, and begin anew with every epoch.
                continue
            shape = np.shape(value)
            if variable is None or tuple(variable.shape) != shape:
                has = "no such variable" if variable is None else f"shape {tuple(variable.shape)}"
                raise ValueError(
                    "A state tree must come from the same model. Received: a value of shape "
                    f"{shape} for {group}/{path}, where this one has {has}. Nothing was "
                    "assigned. Make and compile the model as the one that was saved."
                )
            pairs.append((variable, value))
    for variable, value in pairs:
        variable.assign(value)


def _leaves(tree: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        path = f"{before}{name}"
        inner = _leaves(value, f"{path}/") if isinstance(value, Mapping) else [(path, value)]
        found.extend(inner)
    return found
