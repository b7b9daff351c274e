"""The runtime: all that an image runs.

Imports go adapter -> startup -> api -> grammar -> text -> encoder -> engine -> artifact, never
back: tests/test_boundaries.py has the order.
"""

__version__ = "0.2.0"
"""Of Kindling as a whole. The package's metadata, the images' labels and the API tell this one."""
