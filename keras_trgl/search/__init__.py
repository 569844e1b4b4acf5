"""Search: how to train, from what there is to train with.

May import all rooms but those of its own rank; nothing imports it. It counts and weighs, and never
trains.
"""
