"""How a network trains.

The steps of its stages, their optimizers and stores, and one call of `fit`. It may import the
network, the feeding, the regimes and all below. It alone knows of gradients: they are taken, and
stop, in `stage_step`. It never writes files.
"""
