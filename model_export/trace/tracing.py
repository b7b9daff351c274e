"""Traces a torch module into an ONNX graph by torch.onnx.export.

The graph is plain and slow; fuse and quantize make it fast. Weights are never serialised on the
way: the trace sees them as inputs, and they become initialisers that view the module's own
tensors, so memory holds them once.

`patch_unsupported_ops` replaces operations that torch's TorchScript exporter cannot write, or not
well, by others. Complex numbers, by which some architectures (DeepSeek-V2, Llama 4) rotate query
and key, become pairs of real tensors, since ONNX has none.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import onnx
import onnx_ir as ir
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model_export.fetch.stand_ins import is_stand_in, weight_of
from model_export.lazy_tensors import WeightTensor

OPSET = 20
"""The newest that torch's TorchScript exporter writes."""
_ADDMM = torch.ops.aten.addmm.default
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, _ADDMM)


def trace(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    domains: Sequence[str] = (),
) -> ir.Model:
    """Returns the graph of `module` on `examples`, which `inputs` name in their order.

    `domains` are those of operators that ONNX itself does not have. `module` is left in
    evaluation mode; no gradients are recorded.
    """
    buffer = io.BytesIO()
    with quiet(), torch.no_grad(), _without_inference():
        torch.onnx.export(
            module,
            tuple(examples),
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            export_params=False,
            keep_initializers_as_inputs=True,  # otherwise torch makes one of all equal weights
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
def _without_inference() -> Iterator[None]:
    """Keeps torch from inferring the shapes of the whole graph, which took half of a trace's time.

    The passes infer them by ONNX Runtime, and torch has those of each node by itself.
    """
    name = "_jit_pass_onnx_graph_shape_type_inference"
    before = getattr(torch._C, name)
    setattr(torch._C, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(torch._C, name, before)


class NoProducts(TorchDispatchMode):
    """Keeps torch from computing products with stand-ins, which are zeros, as it would copy them.

    It stands below torch's tracer, which sees the same operations as before.
    """

    def __torch_dispatch__(
        self,
        operation: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Runs an operation of torch as it is, or returns the zeros that it would compute."""
        if operation in _PRODUCTS and not kwargs and any(map(is_stand_in, args[-2:])):
            left, right = args[-2:]
            zeros = left.new_zeros(*left.shape[:-1], right.shape[-1])
            return zeros + args[0] if operation is _ADDMM else zeros
        return operation(*args, **(kwargs or {}))


@contextmanager
def quiet() -> Iterator[None]:
    """Silences torch's warnings on tracing: the values it would freeze are the config's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def absent(graph: Any) -> Any:
    """Returns an optional input left out, for a node's symbolic: torch writes the empty name."""
    constant = graph.op("prim::Constant")
    constant.setType(torch._C.OptionalType.ofTensor())
    return constant


def typed_as(outputs: Any, like: Sequence[Any]) -> Any:
    """Gives a node's outputs the types of these values, for its symbolic."""
    for output, template in zip(outputs, like, strict=True):
        output.setType(template.type())
    return outputs


def _with_weights(proto: onnx.ModelProto, module: torch.nn.Module) -> ir.Model:
    """Turns the inputs that stand for weights into initialisers.

    They view the module's own memory; those of stand-ins are read when they are written.
    """
    model = ir.from_proto(proto)
    tensors: dict[str, torch.Tensor] = {}
    tensors.update(module.named_parameters(remove_duplicate=False))
    tensors.update(module.named_buffers(remove_duplicate=False))
    for value in [value for value in model.graph.inputs if value.name in tensors]:
        model.graph.inputs.remove(value)
        tensor = tensors[str(value.name)]
        weight = weight_of(tensor)
        if weight is None:
            value.const_value = ir.tensor(tensor.detach().numpy(), name=value.name)
        else:
            value.const_value = WeightTensor(weight, value.name)
        model.graph.initializers.add(value)
    return model


def _repeat_interleave(
    tensor: torch.Tensor, repeats: int, dim: int = -1, **_: object
) -> torch.Tensor:
    """Repeats by an Expand, whose shape the passes can infer.

    torch writes a loop (https://github.com/pytorch/pytorch/issues/145100), optimum a NonZero.
    """
    axis = dim % tensor.ndim
    shape = [-1] * (tensor.ndim + 1)
    shape[axis + 1] = repeats
    return tensor.unsqueeze(axis + 1).expand(shape).flatten(axis, axis + 1)


def _expm1(tensor: torch.Tensor) -> torch.Tensor:
    """Subtracts 1, as ONNX has no expm1. Apertus adds it to x, which loses the same 1e-7 of it."""
    return tensor.exp() - 1


def _rms_norm(
    tensor: torch.Tensor,
    normalized_shape: tuple[int, ...],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """Computes an RMS norm by the nodes of transformers' own classes, which the passes know."""
    axes = list(range(-len(normalized_shape), 0))
    mean = tensor.pow(2).mean(axes, keepdim=True)
    normal = tensor * torch.rsqrt(mean + (torch.finfo(tensor.dtype).eps if eps is None else eps))
    return normal if weight is None else weight * normal


class _Max(NamedTuple):
    """Stands in for torch.return_types.max."""

    values: torch.Tensor
    indices: torch.Tensor


def _max(
    tensor: torch.Tensor, dim: int | torch.Tensor | None = None, keepdim: bool = False
) -> torch.Tensor | _Max:
    """Takes the largest along one axis by a TopK.

    ONNX Runtime's inference does not know the shape of a ReduceMax.
    """
    if not isinstance(dim, int):
        return torch.max(tensor) if dim is None else torch.maximum(tensor, dim)
    values, indices = tensor.topk(1, dim)
    return _Max(*((each if keepdim else each.select(dim, 0)) for each in (values, indices)))


@dataclass(frozen=True, slots=True)
class Complex:
    """A complex tensor, with the operations that models use before they view it as real again."""

    real: torch.Tensor
    imaginary: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.real.device

    def __mul__(self, factor: Complex | float) -> Complex:
        if not isinstance(factor, Complex):
            return Complex(self.real * factor, self.imaginary * factor)
        return Complex(
            self.real * factor.real - self.imaginary * factor.imaginary,
            self.real * factor.imaginary + self.imaginary * factor.real,
        )

    def __getitem__(self, index: Any) -> Complex:
        return Complex(self.real[index], self.imaginary[index])

    def unsqueeze(self, dim: int) -> Complex:
        return Complex(self.real.unsqueeze(dim), self.imaginary.unsqueeze(dim))

    def to(self, device: torch.device) -> Complex:
        return Complex(self.real.to(device), self.imaginary.to(device))


def polar(absolute: torch.Tensor, angle: torch.Tensor) -> Complex:
    """Stands in for torch.polar; `angle` in radians."""
    return Complex(absolute * angle.cos(), absolute * angle.sin())


def view_as_complex(pairs: torch.Tensor) -> Complex:
    """Stands in for torch.view_as_complex of `pairs` [..., 2]; returns a copy."""
    return Complex(pairs[..., 0], pairs[..., 1])


def view_as_real(number: Complex) -> torch.Tensor:
    """Stands in for torch.view_as_real; returns a copy [..., 2]."""
    return torch.stack((number.real, number.imaginary), dim=-1)


_OPERATIONS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (torch, "repeat_interleave", _repeat_interleave),
    (torch.Tensor, "repeat_interleave", _repeat_interleave),
    (torch, "expm1", _expm1),
    (torch.Tensor, "expm1", _expm1),
    (torch, "rms_norm", _rms_norm),
    (torch.nn.functional, "rms_norm", _rms_norm),
    (torch.Tensor, "max", _max),
    (torch, "polar", polar),
    (torch, "view_as_complex", view_as_complex),
    (torch, "view_as_real", view_as_real),
)


@contextmanager
def patch_unsupported_ops() -> Iterator[None]:
    """Puts the functions of this file in the place of torch's while the block runs."""
    before = [(place, name, getattr(place, name)) for place, name, _ in _OPERATIONS]
    for place, name, operation in _OPERATIONS:
        setattr(place, name, operation)
    try:
        yield
    finally:
        for place, name, operation in before:
            setattr(place, name, operation)
