"""Ids in, a vector or logits out. No text, no HTTP."""
