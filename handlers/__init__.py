"""The runtime: all that an image runs.

Imports go adapter -> startup -> api -> text -> encoder -> engine, never back.
"""

__version__ = "0.2.0"
"""Of Kindling as a whole. The package's metadata, the images' labels and the API tell this one."""
