"""Bakes a system prompt: writes its keys and values, as the engine computes them, to prefix.kv.

Those of a draft model with a cache of its own go to draft.kv, in the same way and for the same ids.

The prefix is what every chat with this system message begins with, by the model's own template
and tokenizer; the engine prefills it in chunks as it does any prompt, so reusing it is reusing an
earlier prompt (handlers/engine/prefix_cache.py). The verifying process, which has no torch, calls
this.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

from handlers.artifact.manifest import DRAFT_GRAPH, DRAFT_PREFIX, PrefixInfo
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from handlers.engine.prefix_cache import prefix_identity
from handlers.engine.session import Session, kernel_versions
from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from handlers.artifact.manifest import Artifact

CHUNK = 128
# They differ in their first character, so what they share ends where a user's words begin.
QUESTIONS = ("Why?", "3 + 4")


def bake(
    artifact: Artifact, system_prompt: str, threads: int, *, draft: bool = False
) -> PrefixInfo:
    """Writes prefix.kv into the artefact and returns what the manifest says of it.

    `draft` writes draft.kv as well. Raises ExportError when the template, the context or the model
    does not allow it.
    """
    ids = common_ids(artifact, system_prompt)
    context = artifact.manifest.context_length
    if not 2 <= len(ids) < context:
        raise ExportError(
            f"[prefix] system_prompt makes all chats begin with the same {len(ids):,} tokens. It "
            f"must be at least 2, and fewer than [export] context_length, which is {context:,}."
        )
    _bake(artifact.graph, artifact.prefix, ids, threads)
    if draft:
        _bake(artifact.directory / DRAFT_GRAPH, artifact.directory / DRAFT_PREFIX, ids, threads)
    computed_with = prefix_identity(artifact.manifest, kernel_versions())
    return PrefixInfo(tokens=len(ids), computed_with=computed_with)


def _bake(graph: Path, path: Path, ids: list[int], threads: int) -> None:
    session = Session(graph, threads=threads, slots=1, capacity=len(ids) + 1)
    _prefill(session, ids)
    write_prefix(path, ids, session.cache.slot_views(0, 0, len(ids)))


def common_ids(artifact: Artifact, system_prompt: str) -> list[int]:
    """Returns the ids with which every chat begins that has this system message and no tools."""
    template, tokenizer = ChatTemplate.of(artifact), Tokenizer.load(artifact.tokenizer)
    system = {"role": "system", "content": system_prompt}
    try:
        first, second = (
            tokenizer.encode(template.render([system, {"role": "user", "content": question}]))
            for question in QUESTIONS
        )
    except InvalidRequest as error:
        raise ExportError(f"[prefix] system_prompt: {error}") from None
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return [token_id for token_id, _ in pairs]


def _prefill(session: Session, ids: list[int]) -> None:
    """Lets an engine prefill the ids as a prompt, and sample one more, which is not computed."""
    engine = Engine(
        session,
        eos_token_ids=(),
        slots=1,
        context_length=len(ids) + 1,
        prefill_chunk=CHUNK,
        prompt_lookup=False,
        queue_limit=0,
    )
    generation = engine.submit(ids, SamplingParams(max_tokens=1, temperature=0.0))
    list(generation)
    if generation.fault is not None:
        raise generation.fault


def write_prefix(path: Path, ids: list[int], tensors: Iterable[NDArray[np.floating]]) -> None:
    """Writes prefix.kv. `tensors`: what a slot holds of the ids, in the graph's order."""
    with path.open("wb") as file:
        file.write(np.array(ids, np.int64).tobytes())
        for tensor in tensors:
            file.write(tensor.tobytes())
