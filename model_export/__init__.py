"""Build time: turns a Hugging Face model into the artefact that `handlers` serves.

`python -m model_export RECIPE` runs the steps of pipeline.py. It may import torch, and
`handlers.engine`, `handlers.encoder` and `handlers.text`: it verifies with what serves. Nothing in
`handlers` imports it.
"""
