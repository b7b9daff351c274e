"""Loads an artefact's draft model beside the model. Imported only where there is one."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING

from handlers.artifact.manifest import DRAFT_GRAPH
from handlers.artifact.parallel_read import settle
from handlers.engine.draft_model import DraftModel
from handlers.engine.prefix_cache import open_draft_prefix
from handlers.engine.session import Session

if TYPE_CHECKING:
    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.engine.prefix_cache import BakedPrefix

LOGGER = logging.getLogger(__name__)


class DraftLoading:
    """A draft model whose graph loads in a thread, while its maker loads the model's."""

    def __init__(self, artifact: Artifact, settings: Settings, context_length: int) -> None:
        self._artifact = artifact
        self._settings = settings
        self._context_length = context_length
        self._session: Future[Session] = Future()
        # No daemon: the end of the process waits, since ONNX Runtime must not be cut short.
        Thread(target=settle, args=(self._session, self._load), name="load-draft").start()

    def finish(self, model: Session, prefix: BakedPrefix | None) -> DraftModel | None:
        """Waits for the graph, and makes the draft model. `prefix`: the model's baked one.

        None, with a warning, where a state would keep wrong guesses. Raises ArtifactError where
        the graph cannot be loaded or the parts do not fit together.
        """
        session, settings, info = self._session.result(), self._settings, self._artifact.manifest
        if info.draft is None or model.recurrent or session.recurrent:
            LOGGER.warning("The draft model is not used: recurrent layers would keep wrong drafts.")
            return None
        capacity = min(self._context_length, session.context_length or self._context_length)
        if info.draft.layers:
            session.share_cache(model)
        else:
            own = open_draft_prefix(self._artifact, prefix)
            if own is not None and len(own.ids) < capacity:
                session.attach_prefix(own)
        return DraftModel(
            session,
            slots=settings.slots,
            capacity=capacity,
            prefill_chunk=settings.prefill_chunk,
            shares_cache=info.draft.layers > 0,
            acceptance=info.draft.acceptance,
        )

    def _load(self) -> Session:
        return Session(
            self._artifact.directory / DRAFT_GRAPH,
            threads=self._settings.threads,
            slots=self._settings.slots,
            capacity=self._context_length,
        )
