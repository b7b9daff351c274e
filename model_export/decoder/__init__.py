"""The export of a decoder: what it does in its own way. encoder/ has the same for an encoder."""
