"""Build time: turns a Hugging Face model into the artefact that `handlers` serves.

`python -m model_export RECIPE` runs fetch > convert > fuse > quantize > verify > pack.
It may import torch, and `handlers.engine` and `handlers.text`: it verifies with what serves.
Nothing under `handlers` imports it.
"""
