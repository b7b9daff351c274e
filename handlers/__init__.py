"""The runtime: all that an image runs.

Imports go adapter -> startup -> api -> text -> engine, never back.
"""
