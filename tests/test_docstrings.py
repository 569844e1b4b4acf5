"""Docstrings of public objects: arguments, types, shapes, units, true defaults, examples."""

import importlib
import inspect
import re
import types

import pytest

import keras_trgl
from keras_trgl.registration import PUBLIC

OBJECTS = sorted(PUBLIC.items())

ABSTRACT = {"heads.Head", "methods.Method", "methods.LocalMethod", "regimes.Regime"}
"""To be extended: docs/extend.md has their examples, which run too."""

OF_KERAS = {
    *{"build", "call", "compute_output_shape", "compute_output_spec", "get_config", "from_config"},
    *{"apply", "finalize_variable_values", "load_own_variables", "save_own_variables"},
    *{"on_epoch_begin", "on_epoch_end", "on_test_batch_end", "on_test_end"},
    *{"on_train_batch_end", "on_train_begin", "on_train_end", "set_model"},
    *{"fit", "evaluate", "predict", "predict_on_batch", "train_on_batch", "test_on_batch"},
    *{"train_step", "test_step", "make_train_function", "get_metrics_result", "summary", "export"},
    *{"compute_loss", "compute_metrics", "get_compile_config", "compile_from_config"},
    *{"load_assets", "save_assets", "make_test_function", "on_test_begin", "compute_mask"},
}
"""Overrides whose arguments Keras's own documentation has."""


def public_objects():
    """Give every exported class and function, as users write it."""
    for name, value in vars(keras_trgl).items():
        if isinstance(value, types.ModuleType):
            if hasattr(value, "__path__") and not name.startswith("_"):
                module = importlib.import_module(value.__name__)
                for inner, entry in vars(module).items():
                    if callable(entry) and not inner.startswith("_"):
                        yield f"{name}.{inner}", entry
        elif callable(value) and not name.startswith("_"):
            yield name, value


def is_ours(cls):
    return cls.__module__.startswith("keras_trgl.")


def methods_of(cls):
    """Give the methods and properties that a class has from this package, by qualified name."""
    for base in cls.__mro__:
        if not is_ours(base):
            continue
        for name, value in vars(base).items():
            # An override says what differs; the class that begins it has the arguments.
            if any(name in vars(one) for one in base.__mro__[1:] if is_ours(one)):
                continue
            value = getattr(value, "__func__", value)
            is_public = name == "__call__" or not name.startswith("_")
            is_method = isinstance(value, (types.FunctionType, property))
            if is_public and is_method and name not in OF_KERAS:
                yield f"{base.__module__}.{base.__name__}.{name}", value


METHODS = sorted(
    {
        name: method
        for _, target in public_objects()
        if isinstance(target, type)
        for name, method in methods_of(target)
    }.items()
)
FUNCTIONS = [(name, method) for name, method in METHODS if not isinstance(method, property)]
DOCUMENTED = sorted({**dict(public_objects()), **dict(FUNCTIONS)}.items())


def parameters(target):
    function = target.__init__ if isinstance(target, type) else target
    if function is object.__init__:
        return {}
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in {"self", "cls", "args", "kwargs"}
    }


def section(docstring, name):
    found = re.search(rf"^{name}:\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


def entries(target):
    """Give what `Args` says of each argument, in one line."""
    documented = section(inspect.getdoc(target) or "", "Args")
    found = re.findall(
        r"^ {4}\*{0,2}(\w+): (.*?)(?=^ {4}\S|\Z)", documented, re.MULTILINE | re.DOTALL
    )
    return {name: " ".join(text.split()) for name, text in found}


def ids(table):
    return [name.removeprefix("keras_trgl.") for name, _ in table]


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_every_argument_is_documented_with_its_true_default(name, target):
    said_of = entries(target)
    for argument, parameter in parameters(target).items():
        entry = said_of.get(argument)
        assert entry, f"{argument} of {name} is not documented."
        said = re.search(r"Defaults to `([^`]+)`", entry)
        if said:
            assert eval(said.group(1), vars(inspect.getmodule(target))) == parameter.default
        elif "Defaults to" not in entry:
            variadic = parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
            assert variadic or parameter.default is parameter.empty, f"{argument} has a default."


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_no_argument_is_documented_that_is_not_there(name, target):
    taken = {*inspect.signature(target).parameters, "kwargs"}
    assert set(entries(target)) <= taken


TYPES = (
    r"int|float|bool|str|bytes|path|number|tuple|list|dict|sequence|structure|array|tensor|scalar|"
    r"function|class|layer|device|optimizer|variable|callable|anything"
)
STARTS = re.compile(
    # `ClassName`, `keras.Model`, "a literal", None, or one of the words above, maybe with `a`.
    rf"(a |an |nested |unbuilt |built |functional |Keras |uint8 |int32 |int64 |bool |float )*"
    rf"(`[A-Z][\w.]*`|`keras\.[\w.]+`|`\"[^`]+`|`None`|({TYPES})s?\b|as in Keras|as in `|see `)"
)


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_every_argument_begins_with_its_type(name, target):
    for argument, entry in entries(target).items():
        assert argument == "kwargs" or STARTS.match(entry), f"{name}: {argument}: {entry}"


AXES = {"batch", "examples", "height", "width", "channels", "features", "classes", "units"}
"""Of style.md 2.6, with `examples` for the rows of a data set and `units` for a head's numbers."""

SHAPE = re.compile(r"`\(([^()`]*)\)`|scalar|any shape|shape of `|as `|likewise|see `")


def texts(target):
    """Give what is said of each argument and of the result."""
    yield from entries(target).items()
    result = " ".join(section(inspect.getdoc(target) or "", "Returns").split())
    if result:
        yield "Returns", result


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_every_tensor_and_array_has_a_shape(name, target):
    for argument, entry in texts(target):
        if re.search(r"\b([Tt]ensors?|[Aa]rrays?)\b", entry):
            assert SHAPE.search(entry), f"{name}: {argument}: {entry}"


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_axes_are_named_from_one_list(name, target):
    for argument, entry in texts(target):
        assert not re.search(r"\([^()]*\b(rows|columns)\b[^()]*\)", entry), entry
        for axes in re.findall(r"`\(((?:batch|examples|height|width|channels)\b[^()`]*)\)`", entry):
            for axis in re.split(r",\s*", axes.strip(", ")):
                known = axis in {*AXES, "…", "..."} or re.fullmatch(r"\d+", axis)
                assert known, f"{name}: {argument}: {axis} in {entry}"


NUMBER = re.compile(r"(list of |tuple of |sequence of |[Nn]umber|dict of .* to )*(int|float)s?\b")
MEANING = re.compile(
    r"[<>≥≤…]| in [\[(]|\b0 to |\b1 to |"
    r"\b(bytes?|seconds?|pixels?|epochs?|batch(es)?|steps?|blocks?|channels?|stages?|depths?|rows?|"
    r"examples?|laps?|units|class(es)?|copies|feature units|[Gg]ain|decay|[Ss]hare|"
    r"[Vv]ersion|[Ss]eed|accuracy|per unit|[Pp]osition|number of|[Nn]umbers? in|requests?|"
    r"task loss|difference|in the unit of)\b"
)


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_every_number_has_a_unit_or_a_range(name, target):
    for argument, entry in texts(target):
        if NUMBER.match(entry):
            assert MEANING.search(entry), f"{name}: {argument}: {entry}"


@pytest.mark.parametrize(("name", "target"), OBJECTS, ids=ids(OBJECTS))
def test_every_public_object_has_an_example_that_runs(name, target):
    assert ">>>" in section(inspect.getdoc(target), "Example"), name


def test_every_exported_object_is_marked_public_or_abstract():
    marked = {id(target) for target in PUBLIC.values()}
    assert {name for name, one in public_objects() if id(one) not in marked} == ABSTRACT


@pytest.mark.parametrize(("name", "target"), DOCUMENTED, ids=ids(DOCUMENTED))
def test_functions_and_methods_say_what_they_return(name, target):
    if not isinstance(target, type):
        result = inspect.signature(target).return_annotation
        assert bool(section(inspect.getdoc(target), "Returns")) == (result not in (None, "None"))


@pytest.mark.parametrize(("name", "method"), METHODS, ids=ids(METHODS))
def test_methods_and_properties_have_a_summary(name, method):
    summary = inspect.getdoc(method).splitlines()[0]
    assert summary.endswith((".", "`.", "…")) or summary.endswith(")`."), summary
    assert len(summary) > 10


CITES = re.compile(r"\b(19|20)\d\d\b")


@pytest.mark.parametrize(("name", "target"), OBJECTS, ids=ids(OBJECTS))
def test_a_reference_names_author_year_and_place(name, target):
    reference = section(inspect.getdoc(target), "Reference")
    if reference:
        assert CITES.search(reference), reference
        assert "et al." in reference or " and " in reference, reference
