"""Regularisers: the kinetic energy of a stage."""

from keras_trgl.regularizers.kinetic_energy import KineticEnergy as KineticEnergy
from keras_trgl.regularizers.kinetic_energy import kinetic_energy as kinetic_energy
