"""Diagnostics: what a run did, seen from outside.

May import all rooms but those of its own rank; nothing imports it. It never changes what it looks
at.
"""
