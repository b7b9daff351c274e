"""Build time: turns a Hugging Face model into the artefact that `handlers` serves.

`python -m model_export RECIPE` runs the steps of pipeline.py, which is where to begin to read:

    recipe.py recipe_loader.py   what to export
    draft/                       a small model beside it that guesses, or its own first layers
    fetch/                       the source's files and the model in memory
    decoder/ encoder/            what each does in its own way: reference, graph, passes, gates
    trace/                       a model of transformers becomes an ONNX graph
    fuse/ quantize/ save.py      the graph becomes fast, small and a file
    verify/                      the gates, in a process of their own
    package.py manifest.py       the files beside the graph, and the artefact in its place
    sizing/                      the same without weights: --dry-run and --list

It may import torch, and `handlers.engine`, `handlers.encoder` and `handlers.text`: it verifies with
what serves. Nothing in `handlers` imports it.
"""
