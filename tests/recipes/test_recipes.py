"""Recipes: every published row, parts that this package has, schedules, refusals."""

import dataclasses
import math

import keras
import numpy as np
import pytest

import keras_trgl as trgl
from keras_trgl.recipes.recipe import Part, rates
from keras_trgl.recipes.settings import DATASETS, NETWORKS

TABLES = {
    # Words of the names, and the rows that the published table has.
    "tiny_imagenet": 4 * 6,
    "swin_tiny": 3 * 5,
    "stl10 resnet110": 4 * 5 + 1 + 2 * 3,
    "cifar100 resnet10-1": 4 * 7,
    "cifar100 resnet101": 5 + 4,
    "cifar100 resnet152": 5,
    "cifar10 resnet2-7": 5,
    "imagenet resnet101": 6,
    "cifar10 resnet10-1": 5 * 3,
}
NAMES = [one.name for one in trgl.recipes.list()]


@pytest.mark.parametrize("words", TABLES)
def test_every_published_row_is_there(words):
    assert len(trgl.recipes.list(words)) == TABLES[words]


def test_the_tables_are_all_there_is_and_names_are_their_own():
    assert len(NAMES) == len(set(NAMES)) == sum(TABLES.values())
    # Means of the published tables, summed by hand from methods.md, section 6.
    assert trgl.recipes.get("trgl/stl10/resnet110/k16").accuracy == 77.22
    assert trgl.recipes.get("dgl/stl10/resnet110/k2").half_width == 1.18
    assert trgl.recipes.get("vangl/stl10/swin_tiny/k4").memory_saved == 55


def test_a_name_says_stages_and_network_and_blocks_are_shared_out():
    for recipe in trgl.recipes.list():
        _, dataset, network, stages, *_ = recipe.name.split("/")
        assert stages == f"k{recipe.num_stages}"
        assert len(recipe.heads) == recipe.num_stages
        alone = bool(recipe.blocks.settings.get("separate_encoder"))
        assert sum(recipe.stage_sizes) == NETWORKS[network][2] + alone
        assert recipe.dataset == dataset
        assert dataset in DATASETS
        assert recipe.name in repr(recipe)
        assert all((recipe.source, recipe.differs))


def test_parts_are_names_of_this_package_or_what_is_lacking():
    for recipe in trgl.recipes.list():
        rooms = {
            trgl.architectures: [recipe.blocks],
            trgl.heads: recipe.heads,
            trgl.regimes: [recipe.regime],
            trgl.callbacks: recipe.callbacks,
            keras.optimizers: [recipe.optimizer],
        }
        assert all(hasattr(room, part.name) for room, parts in rooms.items() for part in parts)
        missing = f"`methods.{recipe.method.name}`"
        assert hasattr(trgl.methods, recipe.method.name) != (missing in recipe.lacks)
        if missing not in recipe.lacks:
            recipe.method.make(trgl.methods)


MADE = {
    # Trainable parameters with all heads, of methods.md, 4.1 to 4.5.
    "trgl/stl10/resnet110/k2": (1782244, "TRGL"),
    "vangl/stl10/resnet110/k2/balanced": (1778180, "VanGL"),
    "trgl/stl10/resnet110/k4": (1833112, "TRGL"),
    "vangl/stl10/swin_tiny/k4": (27531970, "VanGL"),
    "end_to_end/stl10/swin_tiny/k1": (27515812, "EndToEnd"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MADE)
def test_a_recipe_makes_the_published_network(name):
    model = trgl.recipes.get(name).make(seed=0)
    count = sum(math.prod(one.shape) for one in model.trainable_variables)
    assert (count, type(model.method).__name__) == MADE[name]
    assert model.optimizer is not None


ON_DIGITS = {
    "trgl/cifar100/resnet10-1/k11/multi_lap/5000": "MultiLap",
    "infopro/cifar10/resnet2-7/k2": "Parallel",
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ON_DIGITS)
def test_a_recipe_trains_on_data_of_ones_own(name):
    data = trgl.datasets.load("digits").subset(64)
    recipe = trgl.recipes.get(name)
    small = Part(recipe.blocks.name, {**recipe.blocks.settings, "width": 4})
    recipe = dataclasses.replace(recipe, blocks=small, batch_size=32)
    model = recipe.make(data, epochs=5, seed=0, metrics=[])
    stream = recipe.stream(data, seed=1)
    assert next(iter(stream.from_step().take(1)))[1].shape == (32, 10)
    if type(model.regime).__name__ == "Parallel":
        model.fit(stream, epochs=1, verbose=0, callbacks=recipe.make_callbacks())
    assert type(model.regime).__name__ == ON_DIGITS[name]


def test_multipliers_are_callbacks_of_the_recipe():
    (callback,) = trgl.recipes.get("trgl/cifar100/resnet101/k2").make_callbacks()
    assert (callback.h, callback.s, callback.initial) == (1.0, 50, 1.0)


def infopro_by_hand(epoch, epochs=160, rate=0.1):
    cosine = 0.5 * rate * (1 + np.cos(np.pi * epoch / epochs))
    return cosine if epoch > 10 else cosine * (epoch - 1) / 10 + 0.01 * (11 - epoch) / 10


SCHEDULES = {
    # The published values of methods.md, 9 I, by epoch counted from 1.
    "infopro": (
        {"rate": 0.1},
        {1: 0.01, 2: 0.018996, 5: 0.045904, 10: 0.090135, 11: 0.098838, 80: 0.05, 160: 0.0},
        160,
    ),
    "steps": (
        {"rate": 0.1, "factor": 0.2, "at": (120, 160, 200)},
        {1: 0.1, 120: 0.1, 121: 0.02, 161: 0.004, 201: 0.0008, 300: 0.0008},
        300,
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_the_published_ones_on_the_first_and_last_step_of_an_epoch(name):
    settings, wanted, epochs = SCHEDULES[name]
    schedule = rates(Part(name, settings), 7, epochs)
    for epoch, rate in wanted.items():
        for step in ((epoch - 1) * 7, epoch * 7 - 1):
            assert float(schedule(step)) == pytest.approx(rate, abs=1e-6), (epoch, step)
    if name == "infopro":
        found = [float(schedule((e - 1) * 7)) for e in range(1, 30)]
        assert found == pytest.approx([infopro_by_hand(e) for e in range(1, 30)], abs=1e-7)


def test_swin_warms_up_and_falls_to_its_floor():
    swin = trgl.recipes.get("trgl/stl10/swin_tiny/k4").schedule
    schedule = rates(swin, 5, 300)
    found = [float(schedule(step)) for step in (0, 100, 1500)]
    assert found == pytest.approx([7e-5, 7e-3, 7e-4], rel=1e-5)


def test_a_recipe_loads_as_many_images_as_it_had(monkeypatch):
    asked = {}
    whole = trgl.datasets.load("digits")

    def load(name, data_dir=None, **more):
        asked[name] = more
        return whole

    monkeypatch.setattr(trgl.datasets, "load", load)
    recipe = trgl.recipes.get("vangl/cifar10/resnet10-1/k11/sequential/size5")
    assert len(recipe.load().y_train) == 1000
    assert trgl.recipes.get("vangl/imagenet/resnet101/k2").load() is whole
    assert asked == {"cifar10": {}, "folder": {"image_size": (224, 224)}}


def test_the_table_shows_every_row_with_what_is_open():
    lines = str(trgl.recipes.list()).splitlines()
    assert len(lines) == len(NAMES) + 1
    line = next(one for one in lines if one.startswith("trgl/stl10/resnet110/k4 "))
    assert "79.72 ± 0.81" in line
    assert "24 %" in line
    assert "number of training images" in next(one for one in lines if "size3" in one)


def test_unknown_names_are_refused_with_near_ones():
    near = r"one of `recipes.list\(\)`. Received: name='trgl/stl10/resnet110/k5'. .*/k4'"
    with pytest.raises(ValueError, match=near):
        trgl.recipes.get("trgl/stl10/resnet110/k5")


def test_what_this_package_lacks_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"Received: 'trgl/tiny_.*needs an energy of convolutions"):
        trgl.recipes.get("trgl/tiny_imagenet/vgg19/k4").make()
    lacking = [one for one in trgl.recipes.list() if any("methods." in what for what in one.lacks)]
    for recipe in lacking:
        with pytest.raises(ValueError, match=rf"needs `methods\.{recipe.method.name}`"):
            recipe.make()
    with pytest.raises(ValueError, match="`epochs` must be at least 1"):
        trgl.recipes.get("trgl/stl10/resnet110/k4").make(epochs=0)
