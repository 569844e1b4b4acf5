"""What is saved and put back.

Files that are whole or absent, and the state of a run. It may import the ground alone. It knows
variables, numbers and bytes, and never what they mean.
"""
