"""Where batches come from.

Their order as a function of (seed, epoch, step), and cached features. It may import the ground,
`datasets` and the regimes' settings. It never sees a model's layers or weights: stages reach it as
functions.
"""
