"""Says where each tensor of a graph lies in the file of weights, before any is computed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.lazy_tensors import Arrays, GroupTensor, TensorGroup, WeightTensor
from model_export.weights import Floats

PAGE = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the file, in bytes."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, eq=False)
class PlacedGroup:
    """Tensors that are computed together, and the places of those that the graph has."""

    group: TensorGroup
    places: dict[int, Place] = field(default_factory=dict)
    """By the tensor's number in the group."""


@dataclass(slots=True)
class Layout:
    """The tensors of a file in their order: each begins a page.

    Tensors of one weight, or that view the same memory (a tied embedding and output projection),
    have one place.
    """

    end: int = 0
    groups: dict[int, PlacedGroup] = field(default_factory=dict)
    arrays: list[tuple[Place, NDArray[np.generic]]] = field(default_factory=list)
    """What is in memory. All are held: a freed array's address may be the next one's, and then
    names two."""
    _found: dict[tuple[int, int], Place] = field(default_factory=dict)

    def add(self, tensor: ir.TensorProtocol) -> Place:
        """Returns the place of a tensor, at the end where it is a new one."""
        if isinstance(tensor, WeightTensor):
            return self._add_to_group(id(tensor.weight), _group_of(tensor), 0, tensor.nbytes)
        if isinstance(tensor, GroupTensor):
            return self._add_to_group(id(tensor.group), tensor.group, tensor.index, tensor.nbytes)
        array = np.asarray(tensor.numpy())
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        memory = (array.__array_interface__["data"][0], array.nbytes)
        if memory not in self._found:
            self._found[memory] = self._append(array.nbytes)
            self.arrays.append((self._found[memory], array))
        return self._found[memory]

    def places(self) -> list[Place]:
        """Returns all places, in no order."""
        grouped = [place for placed in self.groups.values() for place in placed.places.values()]
        return [*grouped, *(place for place, _ in self.arrays)]

    def digest(self) -> str:
        """Returns a hash of all that the file's places depend on."""
        groups = [
            (each.group.weight.shape, each.group.rows_per_entry, sorted(each.places.items()))
            for each in self.groups.values()
        ]
        content = repr((groups, [place for place, _ in self.arrays]))
        return hashlib.sha256(content.encode()).hexdigest()

    def _add_to_group(self, key: int, group: TensorGroup, index: int, size: int) -> Place:
        placed = self.groups.setdefault(key, PlacedGroup(group))
        if index not in placed.places:
            placed.places[index] = self._append(size)
        return placed.places[index]

    def _append(self, size: int) -> Place:
        place = Place(self.end + -self.end % PAGE, size)
        self.end = place.end
        return place


def _group_of(tensor: WeightTensor) -> TensorGroup:
    return TensorGroup(tensor.weight, 1, _as_it_is)


def _as_it_is(rows: Floats) -> Arrays:
    return (rows,)
