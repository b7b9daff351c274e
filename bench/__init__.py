"""Benchmarks. `make bench` compares Kindling with the plain way to serve the same model."""
