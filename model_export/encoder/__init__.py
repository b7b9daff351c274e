"""Exports encoders: embeddings, classifiers and rerankers. The same steps as a decoder's export.

recipe.py > source.py and modules.py > convert.py > fuse.py > quantize > verify/ > pack.py, in the
order of pipeline.py. What a decoder's export does in the same way (fetching, the passes, the
blocks, the artefact's directory) is called there, not repeated here.
"""
