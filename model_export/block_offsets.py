"""The float offset of affine blocks, as nodes beside the product.

MatMulNBits computes with an integer zero point alone (its float one is 60 times slower on a
CPU, docs/precision.md). But a weight scale * (q - 8) + offset splits a product in two:

    x @ w  =  x @ (scale * (q - 8))  +  (x summed over each block) @ offsets
              MatMulNBits               Reshape, ReduceSum       MatMul, then Add

The second part has 1 / block_size of the weights, and layers that read the same x share its
sums: 8 microseconds for each of SmolLM2-135M's products, 1.2 ms a token. ReduceSum rather than a
product with a matrix of ones, which took 7 to 20 microseconds for 1536 to 4096 columns. Called by
quantize.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.fuse.graphs import add_initializer, insert


@dataclass(slots=True)
class BlockOffsets:
    """Adds the offsets of one model's blocks."""

    model: ir.Model
    _sums: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def add(
        self,
        before: ir.Node,
        x: ir.Value,
        product: ir.Value,
        offsets: NDArray[np.float32],
        size: int,
    ) -> ir.Value:
        """`product` [batch, sequence, rows] with the offsets of its blocks added.

        `x` [batch, sequence, columns] is what the layer reads, `offsets` [rows, blocks] of blocks
        of `size` columns. The new nodes stand before `before`.
        """
        turned = np.ascontiguousarray(offsets.T)  # as MatMul wants them
        matrix = add_initializer(self.model, f"{product.name}.offsets", turned)
        sums = self._block_sums(before, x, len(turned), size)
        share = insert(before, "MatMul", [sums, matrix], like=[product])
        return insert(before, "Add", [product, share.outputs[0]], like=[product]).outputs[0]

    def _block_sums(self, before: ir.Node, x: ir.Value, blocks: int, size: int) -> ir.Value:
        """[batch, sequence, blocks]. Made once for each `x`, before its first reader."""
        if x not in self._sums:
            shape = np.array([0, 0, blocks, size], np.int64)
            cut = insert(before, "Reshape", [x, self._constant("block_shape", shape)])
            axis = self._constant("block_axis", np.array([3], np.int64))
            total = insert(before, "ReduceSum", [cut.outputs[0], axis], {"keepdims": 0})
            self._sums[x] = total.outputs[0]
        return self._sums[x]

    def _constant(self, name: str, array: NDArray[np.int64]) -> ir.Value:
        """One initialiser for equal arrays."""
        name = f"{name}.{'x'.join(map(str, array))}"
        known = self.model.graph.initializers.get(name)
        return add_initializer(self.model, name, array) if known is None else known
