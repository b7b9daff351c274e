"""Predicts what drafts would gain, before anything is exported: a part of what `--plan` prints.

In fp32, on the half of the evaluation text that the gates do not judge by. The export measures with
the quantised models, and on chats too, whose answers are easier to guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model_export.decoder.cut import layers_of
from model_export.decoder.exits import choices_by_layers
from model_export.draft.same_tokens import check_same_tokens
from model_export.draft.support import has_states
from model_export.fetch.load import LoadedModel, fetch
from model_export.recipe import DecoderRecipe
from model_export.recipe_loader import load_sibling_recipe
from model_export.reporting import ExportError, Report
from model_export.sizing.draft import DraftSize, size_of_own_layers, size_of_sibling
from model_export.sizing.outline import outline_of_model
from model_export.verify.speculation import predict

if TYPE_CHECKING:
    from model_export.decoder.exits import Choices

SHOWN = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4)
"""Shares of the layers that the table has."""
HEAD = ("draft model", "acceptance", "a step", "ids", "decode speed")


def draft_table(
    loaded: LoadedModel, recipe: DecoderRecipe, windows: Sequence[Sequence[int]], report: Report
) -> str:
    """Returns a line for some numbers of own layers, and one for the recipe's draft model.

    An empty text of a model that does not divide, or has states. Raises ExportError.
    """
    found, wanted = layers_of(loaded.model), recipe.draft
    if found is None or has_states(loaded.model):
        return ""
    whole = len(found.layers)
    counts = {max(1, round(share * whole)) for share in SHOWN}
    if wanted is not None and wanted.layers is not None:
        counts.add(wanted.layers)
    shown = sorted(counts - {whole})
    report(f"draft: first choices after {', '.join(map(str, shown))} of {whole} layers")
    choices = choices_by_layers(loaded.model, found, windows, [*shown, whole], report)
    outline = outline_of_model(loaded.model, recipe)
    sizes = {count: size_of_own_layers(outline, recipe.precision, count) for count in shown}
    rows = [_row(sizes[count], choices[count], choices[whole]) for count in shown]
    if wanted is not None and wanted.recipe is not None:
        sibling = load_sibling_recipe(wanted.recipe, recipe.export.context_length)
        other = _sibling(loaded, sibling, report)
        size = size_of_sibling(
            outline, recipe.precision, sibling, outline_of_model(other.model, sibling), tokens=0
        )
        rows.append(_row(size, _all_layers(other, windows, report), choices[whole]))
    return _aligned([HEAD, *rows])


def _sibling(model: LoadedModel, recipe: DecoderRecipe, report: Report) -> LoadedModel:
    other = fetch(recipe.source, lambda line: report(f"draft: {line}"))
    try:
        check_same_tokens(model, other)
    except ExportError as error:
        raise ExportError(f"[draft] recipe {recipe.name}: {error}") from error
    return other


def _all_layers(loaded: LoadedModel, windows: Sequence[Sequence[int]], report: Report) -> Choices:
    found = layers_of(loaded.model)
    if found is None:
        raise ExportError(
            f"--plan cannot tell what {type(loaded.model).__name__} would gain as a draft model, "
            f"since it does not divide: leave [draft] out here, and the export measures it."
        )
    whole = len(found.layers)
    return choices_by_layers(loaded.model, found, windows, [whole], report)[whole]


def _row(size: DraftSize, guessed: Choices, true: Choices) -> tuple[str, ...]:
    hits = [ours == theirs for ours, theirs in zip(guessed, true, strict=True)]
    prediction = predict({"text": hits}, size.step_cost)
    best = prediction.best
    return (
        size.name,
        f"{prediction.acceptance:.2f}",
        f"{size.step_cost:.2f}",
        f"{best.ids}",
        f"{best.gain:.2f}",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
