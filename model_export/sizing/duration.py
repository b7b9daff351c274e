"""Predicts how long an export takes, on the machine that it is asked on.

Most of it is products of matrices, whose speed is measured on the spot. The rest are constants,
fitted to exports of 135M, 494M and 1,236M weights, and of an encoder of 23M, on two cores of a Xeon
at 2.8 GHz with AVX-512 that nothing else used. docs/recipes.md has the comparison.
"""

from __future__ import annotations

import time

from model_export.decoder.calibration import CALIBRATION_TOKENS
from model_export.recipe import Precision
from model_export.sizing.cost import TOKENS
from model_export.sizing.footprint import Layers, Outline

STARTS = 14.5
"""Imports of both processes, the tokenizer, the passes."""
LAYER = 0.2
"""Tracing a layer."""
HASHED = 1.2e9
"""Bytes a second of sha256."""
REFERENCE, QUANTISED_GRAPH = 0.97, 0.65
"""Times that of plain products, in transformers' layers and in the quantised graph."""
MEASURED_PLANS = 3
"""Plans that weights = "auto" measures, of which one is the artefact (plan_choice.py).

It is 1 where the smallest holds, and 6 at most.
"""
ACTIVATIONS = 6e-9
"""Of a value of what a layer computes beside its products: ten of its width, four of its MLP's."""
COMPARED = 50e6
"""Logits a second that are written, computed again and compared."""
ANSWERS = 1e-7
"""Of a value of the cut model, which answers the corpus's prompts three times, token by token."""
QUANTISED = 75e6
"""Values a second that one thread reads, quantises and writes."""
SEARCHED = 50e6
"""The same, where the blocks are searched (quantize/importance_search.py).

53e6 of bfloat16, and 42e6 of a GGUF file.
"""
_SIZE = 1024
_ENCODER = Layers(count=12, largest=0, cut=0)


def measured_speed(threads: int) -> float:
    """Measures torch's products of float32 matrices, in operations a second."""
    import torch

    torch.set_num_threads(threads)
    one = torch.ones(_SIZE, _SIZE)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        one @ one
        best = min(best, time.perf_counter() - began)
    return 2 * _SIZE**3 / best


def seconds_of(
    outline: Outline, precision: Precision, hashed: int, speed: float, threads: int
) -> float:
    """Predicts the seconds of an export, without a download.

    `hashed`: bytes of files that it digests. Of many experts all are counted, though few compute.
    """
    sizes = [(each.head, each.rows * each.columns) for each in outline.matrices]
    linears = sum(size for head, size in sizes if not head)
    layers = outline.layers or _ENCODER
    compared = 2 * (linears + outline.vocabulary * outline.width) * TOKENS
    is_calibrated = precision.is_calibrated and outline.layers is not None
    calibration = CALIBRATION_TOKENS if is_calibrated else 0
    halves, plans, passes = (
        (2, MEASURED_PLANS, 1 + MEASURED_PLANS) if precision.is_searched else (1, 1, 1)
    )
    logits = TOKENS * outline.vocabulary if outline.layers else 0
    activations = layers.count * (10 * outline.width + 4 * outline.inner)
    searched = linears if is_calibrated else 0
    rounded = sum(size for _, size in sizes) - searched
    return (
        STARTS
        + LAYER * layers.count
        + hashed / HASHED
        + compared * (halves * REFERENCE + passes * QUANTISED_GRAPH) / speed
        + 2 * linears * calibration * REFERENCE / speed
        + activations * (halves * TOKENS + calibration) * ACTIVATIONS
        + passes * logits / COMPARED
        + plans * (searched / SEARCHED + rounded / QUANTISED) / threads
        + layers.cut * ANSWERS
    )
