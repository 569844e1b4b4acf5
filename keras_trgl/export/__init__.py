"""Ships any depth of a trained model: TensorFlow Serving, LiteRT, ONNX, OpenVINO, early exit."""

from keras_trgl.export.calibration import Calibration as Calibration
from keras_trgl.export.exit_choice import ExitChoice as ExitChoice
from keras_trgl.export.exit_choice import choose_exit as choose_exit
from keras_trgl.export.exit_choice import choose_exit_from as choose_exit_from
from keras_trgl.export.formats import export_litert as export_litert
from keras_trgl.export.formats import export_onnx as export_onnx
from keras_trgl.export.formats import export_openvino as export_openvino
from keras_trgl.export.options import Inputs as Inputs
from keras_trgl.export.options import Outputs as Outputs
from keras_trgl.export.options import ServerFiles as ServerFiles
from keras_trgl.export.report import ExportReport as ExportReport
from keras_trgl.export.serving import export_exit as export_exit
from keras_trgl.export.serving import export_serving as export_serving
