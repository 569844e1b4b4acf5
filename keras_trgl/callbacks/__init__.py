"""Callbacks for training by stages."""

from keras_trgl.callbacks.backup_and_restore import BackupAndRestore as BackupAndRestore
from keras_trgl.callbacks.depth_checkpoint import DepthCheckpoint as DepthCheckpoint
from keras_trgl.callbacks.depth_progbar import DepthProgbar as DepthProgbar
from keras_trgl.callbacks.multiplier_update import MultiplierUpdate as MultiplierUpdate
from keras_trgl.callbacks.watch_stages import WatchStages as WatchStages
