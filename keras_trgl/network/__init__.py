"""How blocks and heads become one network.

Whose layers they are, where they live, how the network is called, cut off at a depth and shown.
It may import the ground and the pieces (layers, heads, methods, splitting). It never trains, reads
data or writes files.
"""
