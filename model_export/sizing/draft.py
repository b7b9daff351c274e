"""Computes what a draft model adds to an artefact, to its server and to the export.

Of the model's own layers the weights and the cache are the model's, and cost nothing again.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_export.recipe import DecoderRecipe, Precision
from model_export.sizing.cost import TOKENS, Cost, cost_of
from model_export.sizing.duration import QUANTISED_GRAPH
from model_export.sizing.footprint import Outline, cache_bytes, weights_of
from model_export.verify.speculation import step_cost

SESSION_BYTES = 15_000_000
"""Of a second session: its graph, and what a call takes."""
ANSWERED = 1300
"""Tokens of the corpus's chats and of the answers to them."""


@dataclass(frozen=True, slots=True)
class DraftSize:
    """The sizes of a draft model: of another recipe, or of the model's own first layers."""

    name: str
    values: int
    """That a token is multiplied with."""
    weights: int
    """Bytes on disk beside the model's."""
    slot: int
    """Bytes of a slot's cache beside the model's."""
    step_cost: float
    """The time of its step, in calls of one token of the model."""
    cost: Cost
    """Of its export."""

    def memory(self, slots: int) -> int:
        """Returns the resident bytes that it adds to a server with so many slots."""
        return SESSION_BYTES + self.weights + slots * self.slot

    def added_to(self, cost: Cost) -> Cost:
        """Returns the cost of both exports, of which this one's comes first."""
        return Cost(
            memory=max(cost.memory + self.weights, self.cost.memory),
            artefact=cost.artefact + self.weights,
            scratch=max(cost.scratch, self.cost.scratch),
        )


def size_of_own_layers(outline: Outline, precision: Precision, layers: int) -> DraftSize:
    """Computes the sizes of the model's first layers as a draft model."""
    whole = outline.layers.count if outline.layers else layers
    linears, head = _values(outline)
    return DraftSize(
        name=f"the first {layers} of {whole} layers",
        values=round(linears * layers / whole) + head,
        weights=0,
        slot=0,
        step_cost=step_cost(_read(outline, precision, layers / whole), _read(outline, precision)),
        cost=Cost(memory=0, artefact=0, scratch=0),
    )


def size_of_sibling(
    outline: Outline, precision: Precision, recipe: DecoderRecipe, other: Outline, tokens: int
) -> DraftSize:
    """Computes the sizes of another recipe's model, with slots of so many tokens."""
    weights = weights_of(other, recipe.precision)
    return DraftSize(
        name=recipe.model.id,
        values=sum(_values(other)),
        weights=weights.total,
        slot=cache_bytes(other, recipe.precision, tokens),
        step_cost=step_cost(_read(other, recipe.precision), _read(outline, precision)),
        cost=cost_of(other, recipe.precision),
    )


def measuring_seconds(outline: Outline, draft: DraftSize, speed: float) -> float:
    """Predicts how long the verifying process measures it, at so many operations a second."""
    products = sum(_values(outline)) * ANSWERED + draft.values * (TOKENS + ANSWERED)
    return 2 * products * QUANTISED_GRAPH / speed


def _values(outline: Outline) -> tuple[int, int]:
    """Counts the values of linear layers and of the output projection."""
    linears = sum(each.rows * each.columns for each in outline.matrices if not each.head)
    return linears, outline.vocabulary * outline.width


def _read(outline: Outline, precision: Precision, share: float = 1.0) -> float:
    """Computes the bytes of weights that a call reads, with this share of the layers."""
    weights = weights_of(outline, precision)
    heads = sum(each.head for each in outline.matrices)
    return weights.linears * share + weights.heads / max(1, heads)
