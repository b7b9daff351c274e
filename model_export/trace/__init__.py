"""Traces models of transformers by torch.onnx.export, and what a decoder needs to be traceable.

tracing.py              the trace itself, and the operations that torch cannot write
support.py              refusals that need no trace
optimum.py              what optimum knows of an architecture, where it is installed
patches.py              what must be changed about an architecture while it is traced
transformers5_only.py   families that only transformers 5 lets out
attention.py            attention becomes com.microsoft::GroupQueryAttention
recurrent.py            recurrent layers become kindling's operators
cache.py                the cache that a traced model is given
cache_spec.py           what every layer keeps, found by running one step
"""
