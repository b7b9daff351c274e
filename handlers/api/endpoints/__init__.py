"""The endpoints, one in each file: its request, its parsing and its answer."""
