"""An operation on a lazy tensor gives what torch gives, and reads no rows but its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from model_export.fetch.lazy import LazyTensor, read
from model_export.weights import Floats


@dataclass
class Counted:
    """A weight that notes the rows that are read of it."""

    array: Floats
    rows: int = 0
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = self.array.shape

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        part = self.array[start:stop]
        self.rows += len(part)
        return part


def weights(*shapes: tuple[int, ...]) -> list[Counted]:
    source = np.random.default_rng(7)
    return [Counted(source.standard_normal(shape, np.float32)) for shape in shapes]


Operation = Callable[..., "torch.Tensor | tuple[torch.Tensor, ...]"]
MATRICES = [(6, 4), (6, 4)]
EXPERTS = [(4, 6, 2), (4, 6, 2)]
OPERATIONS: dict[str, tuple[Operation, Sequence[tuple[int, ...]]]] = {
    "copied": (lambda a: a.detach().clone().contiguous().to(torch.float32)[...], [(6, 4)]),
    "rows joined": (lambda a, b: torch.cat([a, b]), MATRICES),
    "columns joined": (lambda a, b: torch.cat([a, b], dim=1), MATRICES),
    "experts stacked": (lambda a, b: torch.stack([a, b]), MATRICES),
    "stacked behind": (lambda a, b: torch.stack([a, b], dim=-1), MATRICES),
    "experts joined": (lambda a, b: torch.cat([a, b], dim=1), EXPERTS),
    "turned": (lambda a: a.T.contiguous(), [(6, 4)]),
    "experts turned": (lambda a: a.transpose(-1, 1).contiguous(), [(4, 6, 2)]),
    "turned outside": (lambda a: a.transpose(0, 1).contiguous(), [(4, 6, 2)]),
    "permuted": (lambda a: a.permute(2, 0, 1).contiguous(), [(4, 6, 2)]),
    "chunks": (lambda a: torch.chunk(a, 3), [(6, 4)]),
    "columns split": (lambda a: torch.split(a, [1, 3], dim=1), [(6, 4)]),
    "rows split": (lambda a: torch.split(a, [1, 3, 2]), [(6, 4)]),
    "rows sliced": (lambda a: a[2:5], [(6, 4)]),
    "every second": (lambda a: a[::2], [(6, 4)]),
    "columns sliced": (lambda a: a[:, -3:], [(6, 4)]),
    "one expert": (lambda a: a[1], [(4, 6, 2)]),
    "interleaved": (lambda a: a.reshape(3, 2, 4).transpose(0, 1).reshape(6, 4), [(6, 4)]),
    "reshaped": (lambda a: a.reshape(6, 2, 2).reshape(-1, 4), [(6, 4)]),
    "unsqueezed": (lambda a: a.unsqueeze(0), [(6, 4)]),
    "unsqueezed inside": (lambda a: a[:, None], [(6, 4)]),
    "arithmetic": (lambda a: torch.log(a.abs() + 1) - 1, [(6, 4)]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_what_it_gives_on_values(name: str) -> None:
    operation, shapes = OPERATIONS[name]
    sources = weights(*shapes)
    expected = operation(*[torch.from_numpy(source.array) for source in sources])
    found = operation(*map(LazyTensor, sources))
    if isinstance(expected, torch.Tensor):
        expected, found = (expected,), (found,)  # type: ignore[assignment]
    assert len(found) == len(expected)
    assert all(source.rows == 0 for source in sources)
    for lazy, real in zip(found, expected, strict=True):
        assert isinstance(lazy, LazyTensor)
        assert lazy.shape == real.shape == torch.Size(lazy.weight.shape)
        assert torch.equal(read(lazy.weight), real.contiguous())
        for start, stop in ((0, 1), (1, 3), (2, None), (1, 1)):
            assert np.array_equal(lazy.weight.read(start, stop), real[start:stop])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("rows joined", 1),
        ("columns joined", 2),
        ("experts stacked", 6),
        ("experts joined", 2),
        ("experts turned", 1),
        ("chunks", 1),
        ("rows split", 1),
        ("rows sliced", 1),
        ("one expert", 1),
        ("reshaped", 1),
        ("copied", 1),
    ],
)
def test_reading_one_row_reads_no_more_than_it_is_made_of(name: str, rows: int) -> None:
    operation, shapes = OPERATIONS[name]
    sources = weights(*shapes)
    found = operation(*map(LazyTensor, sources))
    lazy = found if isinstance(found, torch.Tensor) else found[0]
    assert isinstance(lazy, LazyTensor)
    lazy.weight.read(0, 1)
    assert sum(source.rows for source in sources) == rows


def test_a_parameter_of_a_lazy_tensor_keeps_its_weight() -> None:
    (source,) = weights((6, 4))
    parameter = torch.nn.Parameter(LazyTensor(source))
    assert isinstance(parameter, LazyTensor)
    assert parameter.weight is source


def test_lazy_tensors_are_equal_by_their_values() -> None:
    first, second = weights((6, 4), (6, 4))
    assert torch.equal(LazyTensor(first), LazyTensor(Counted(first.array.copy())))
    assert torch.equal(LazyTensor(first), torch.from_numpy(first.array))
    assert not torch.equal(LazyTensor(first), LazyTensor(second))


def test_another_type_is_computed_at_once() -> None:
    (source,) = weights((6, 4))
    half = LazyTensor(source).to(torch.bfloat16)
    assert not isinstance(half, LazyTensor)
    assert torch.equal(half, torch.from_numpy(source.array).to(torch.bfloat16))


def test_nothing_is_written_into_a_lazy_tensor() -> None:
    (source,) = weights((6, 4))
    with pytest.raises(NotImplementedError, match="not read yet"):
        LazyTensor(source).mul_(2)
