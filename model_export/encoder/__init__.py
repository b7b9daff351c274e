"""The export of an encoder: what it does in its own way. decoder/ has the same for a decoder."""
