"""Methods by the names that `GreedyModel` takes."""

from typing import Any

from keras_trgl.checks import chosen
from keras_trgl.methods.aug_local import AugLocal
from keras_trgl.methods.ddg import DDG
from keras_trgl.methods.dgl import DGL
from keras_trgl.methods.dni import DNI
from keras_trgl.methods.end_to_end import EndToEnd
from keras_trgl.methods.features_replay import FeaturesReplay
from keras_trgl.methods.info_pro import InfoPro
from keras_trgl.methods.info_pro_l import InfoProL
from keras_trgl.methods.method import Method
from keras_trgl.methods.pred_sim import PredSim
from keras_trgl.methods.trgl import TRGL, VanGL

METHODS = {
    "trgl": TRGL,
    "vangl": VanGL,
    "end_to_end": EndToEnd,
    "pred_sim": PredSim,
    "dgl": DGL,
    "info_pro": InfoPro,
    "info_pro_l": InfoProL,
    "aug_local": AugLocal,
    "ddg": DDG,
    "features_replay": FeaturesReplay,
    "dni": DNI,
}


def get_method(value: Any) -> Any:
    """Give a method from itself or from its name.

    Raises:
        ValueError: no such name.
        TypeError: something else.
    """
    return chosen("method", value, Method, METHODS)
