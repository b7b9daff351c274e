"""The runtime: all that an image runs.

Imports go adapter -> startup -> api -> text -> encoder -> engine, never back.
"""
