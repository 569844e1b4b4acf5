"""Train deep networks stage by stage with local losses and a transport regulariser."""

from keras_trgl import architectures as architectures
from keras_trgl import callbacks as callbacks
from keras_trgl import datasets as datasets
from keras_trgl import diagnostics as diagnostics
from keras_trgl import distribute as distribute
from keras_trgl import export as export
from keras_trgl import heads as heads
from keras_trgl import layers as layers
from keras_trgl import losses as losses
from keras_trgl import methods as methods
from keras_trgl import plot as plot
from keras_trgl import recipes as recipes
from keras_trgl import regimes as regimes
from keras_trgl import regularizers as regularizers
from keras_trgl import search as search
from keras_trgl import splitting as splitting
from keras_trgl.diagnostics.peak import measure_peak as measure_peak
from keras_trgl.greedy_model import GreedyModel as GreedyModel
from keras_trgl.keeping.saving import load_model as load_model
from keras_trgl.regimes.feature_cache import FeatureCache as FeatureCache
from keras_trgl.search.plan import Plan as Plan
from keras_trgl.search.plan import plan as plan
from keras_trgl.training.optimizers import StageOptimizers as StageOptimizers
from keras_trgl.version import __version__ as __version__
