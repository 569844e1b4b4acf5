"""Methods: what a stage learns from."""

from keras_trgl.methods.aug_local import AugLocal as AugLocal
from keras_trgl.methods.ddg import DDG as DDG
from keras_trgl.methods.dgl import DGL as DGL
from keras_trgl.methods.dni import DNI as DNI
from keras_trgl.methods.end_to_end import EndToEnd as EndToEnd
from keras_trgl.methods.features_replay import FeaturesReplay as FeaturesReplay
from keras_trgl.methods.info_pro import InfoPro as InfoPro
from keras_trgl.methods.info_pro_l import InfoProL as InfoProL
from keras_trgl.methods.method import LocalMethod as LocalMethod
from keras_trgl.methods.method import Method as Method
from keras_trgl.methods.pred_sim import PredSim as PredSim
from keras_trgl.methods.trgl import TRGL as TRGL
from keras_trgl.methods.trgl import VanGL as VanGL
