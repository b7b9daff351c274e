"""The nodes with a state of fixed size that the tests go through."""

from __future__ import annotations

import itertools

from tests.kernels.convolution_node import Convolution
from tests.kernels.linear_node import Linear
from tests.kernels.recurrent_node import Kind

OPTIONS = {
    f"linear{' decay' * decay}{' beta' * beta}{' norm' * bool(epsilon)}": Linear(
        decay=decay, beta=beta, norm_epsilon=epsilon
    )
    for decay, beta, epsilon in itertools.product((True, False), (True, False), (1e-6, 0.0))
}
SIZES = {
    "Qwen3.5": Linear(heads=2, key_heads=2, key_size=128, value_size=128, scale=128**-0.5),
    "three of a key head": Linear(heads=6, key_heads=2, key_size=16, value_size=32),
    "odd": Linear(heads=3, key_heads=1, key_size=17, value_size=33),
    "one by one": Linear(heads=2, key_heads=1, key_size=1, value_size=1),
    "largest": Linear(heads=1, key_heads=1, key_size=512, value_size=512),
    "wide norm": Linear(norm_epsilon=3.0),
}
CONVOLUTIONS = {
    f"convolution of {width}{' with bias' * bias}": Convolution(width=width, bias=bias)
    for width, bias in itertools.product(range(2, 9), (False, True))
}
CHANNELS = {
    f"{channels} channels": Convolution(channels=channels, bias=True)
    for channels in (1, 7, 16, 511, 512, 513, 1300)
}
KINDS: dict[str, Kind] = {**OPTIONS, **SIZES, **CONVOLUTIONS, **CHANNELS}
FEW = ["linear decay beta norm", "convolution of 4 with bias"]
"""One kind of each operator."""
