"""A model's variables as a tree of paths, each of which is there once.

Keras's own tree takes the variables' paths as they are, and refuses a model that has one twice: the
metrics of K stages have the same names. Here theirs begin with the stage.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

METRICS = "metrics_variables"
"""Group of the tree that a model which has not trained yet has only a part of."""


def named_once(variables: Sequence[Any], stages: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Give variables by paths of which none comes twice, in a fixed order.

    Args:
        variables: sequence of Keras variables.
        stages: dict of a variable's `id` to the depth it belongs to, which its path begins with.
            Defaults to none.
    """
    named: dict[str, Any] = {}
    for variable in variables:
        depth = (stages or {}).get(id(variable))
        path = variable.path if depth is None else f"stage_{depth}/{variable.path}"
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
