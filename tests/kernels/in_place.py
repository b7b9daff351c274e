"""One node of the kernels as a session, run on state of its caller's that it updates in place."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests.kernels.every_kernel import alike
from tests.support.switchable_kernels import switchable_library

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]
Array = NDArray[np.generic]

LENGTHS = ("seqlens_k", "query_seqlens")


def make_session(
    operator: str,
    inputs: Mapping[str, int],
    outputs: Mapping[str, int],
    left_out: Collection[str],
    attributes: Mapping[str, Any],
    threads: int,
) -> onnxruntime.InferenceSession:
    """The node with every shape left open; inputs and outputs by their element types."""
    node = helper.make_node(
        operator,
        ["" if name in left_out else name for name in inputs],
        list(outputs),
        domain="kindling",
        **attributes,
    )
    given = {name: kind for name, kind in inputs.items() if name not in left_out}
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in given.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("kindling", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(switchable_library()))
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def element_types(names: Collection[str]) -> dict[str, int]:
    """Lengths are int32 and all else is float."""
    types: dict[str, int] = dict.fromkeys(names, TensorProto.FLOAT)
    return types | {name: TensorProto.INT32 for name in names if name in LENGTHS}


def run_in_place(
    session: onnxruntime.InferenceSession,
    given: Mapping[str, Array],
    states: Mapping[str, Array],
    *,
    bind_presents: bool = True,
) -> Floats:
    """The first output, by every kernel alike, which leave the states alike too.

    Each of `states` is a past_ input and the present_ output of that name.
    """
    before = {name: array.copy() for name, array in states.items()}

    def compute() -> list[Array]:
        for name, array in states.items():
            np.copyto(array, before[name])
        output = _run_bound(session, given, states, bind_presents)
        return [output, *(array.copy() for array in states.values())]

    found: Floats = alike(compute)[0].astype(np.float32, copy=False)
    return found


def _run_bound(
    session: onnxruntime.InferenceSession,
    given: Mapping[str, Array],
    states: Mapping[str, Array],
    bind_presents: bool,
) -> Array:
    binding = session.io_binding()
    for name, array in given.items():
        binding.bind_cpu_input(name, np.ascontiguousarray(array))
    binding.bind_output(session.get_outputs()[0].name)
    for name, array in states.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
        binding.bind_ortvalue_input(f"past_{name}", value)
        if bind_presents:
            binding.bind_ortvalue_output(f"present_{name}", value)
        else:
            binding.bind_output(f"present_{name}")
    session.run_with_iobinding(binding)
    output: Array = binding.get_outputs()[0].numpy()
    return output
