"""Benchmarks. `make bench` compares Kindling with other ways to serve the same model."""
