"""Puts the images onto the clouds, and asks what runs there whether it works.

Knows the images by their names and the API by its paths; imports nothing that serves.
"""
