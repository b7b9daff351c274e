"""A torch module becomes an ONNX graph, by torch.onnx.export's trace.

The graph is plain and slow; fuse and quantize make it fast. Weights are never serialised on the
way: the trace sees them as inputs, and they become initialisers that view the module's own
tensors, so memory holds them once. Called by the package and encoder/convert.py; knows neither.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir
import torch

OPSET = 20
"""The newest that torch's TorchScript exporter writes."""


def trace(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    domains: Sequence[str] = (),
) -> ir.Model:
    """The graph of `module` on `examples`, which `inputs` name in their order.

    `domains` are those of operators that ONNX itself does not have. `module` is left in
    evaluation mode; no gradients are recorded.
    """
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        torch.onnx.export(
            module,
            tuple(examples),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            export_params=False,
            do_constant_folding=False,
            opset_version=OPSET,
            custom_opsets=dict.fromkeys(domains, 1),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dynamic_axes,
        )
    module.eval()  # torch.onnx.export leaves it in training mode
    return _with_weights(onnx.load_from_string(buffer.getvalue()), module)


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warnings on tracing: the values it would freeze are the config's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def absent(graph: Any) -> Any:
    """For a node's symbolic: an optional input left out. torch writes it as the empty name."""
    constant = graph.op("prim::Constant")
    constant.setType(torch._C.OptionalType.ofTensor())
    return constant


def typed_as(outputs: Any, like: Sequence[Any]) -> Any:
    """For a node's symbolic: its outputs, with the types of these values."""
    for output, template in zip(outputs, like, strict=True):
        output.setType(template.type())
    return outputs


def _with_weights(proto: onnx.ModelProto, module: torch.nn.Module) -> ir.Model:
    """Turn the inputs that stand for weights into initialisers over the module's own memory."""
    model = ir.from_proto(proto)
    tensors: dict[str, torch.Tensor] = {}
    tensors.update(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    for value in [value for value in model.graph.inputs if value.name in tensors]:
        model.graph.inputs.remove(value)
        array = tensors[str(value.name)].detach().numpy()
        value.const_value = ir.tensor(array, name=value.name)
        model.graph.initializers.add(value)
    return model
