"""Recipes: published experiments as data, and the numbers that they reached.

May import all rooms below it. It holds rows and puts them together; it never trains.
"""

from keras_trgl.recipes.catalog import get as get
from keras_trgl.recipes.catalog import list as list
from keras_trgl.recipes.recipe import Recipe as Recipe
