"""A stand-in for the Hugging Face hub: the part of its HTTP API that a download uses.

One repository, one commit, which is main's, files out of a folder. Anything else is answered as the
hub answers it: 404 with X-Error-Code.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REPOSITORY = "someone/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MAIN = "main"
GATED = "someone/gated"


@contextmanager
def serve_hub(folder: Path) -> Iterator[str]:
    """The address of a hub whose one repository has the files of `folder`."""
    handler = type("Handler", (_Handler,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: a test's output is pytest's."""

    def _answer(self, with_body: bool) -> None:
        status, headers, body = self._find()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _find(self) -> tuple[int, dict[str, str], bytes]:
        api = f"/api/models/{REPOSITORY}/revision/"
        tree = f"/api/models/{REPOSITORY}/tree/"  # since huggingface_hub 2
        files = f"/{REPOSITORY}/resolve/{COMMIT}/"
        if self.path in {f"{api}{COMMIT}", f"{api}{MAIN}"}:
            return 200, {"Content-Type": "application/json"}, self._repository()
        if self.path.startswith((f"{tree}{COMMIT}", f"{tree}{MAIN}")):
            return 200, {"Content-Type": "application/json"}, self._tree()
        if self.path.startswith((api, tree)):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if self.path.startswith(f"/api/models/{GATED}/"):
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if self.path.startswith(files) and (self.folder / self.path[len(files) :]).is_file():
            body = (self.folder / self.path[len(files) :]).read_bytes()
            etag = hashlib.sha256(body).hexdigest()
            return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _tree(self) -> bytes:
        entries = [
            {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": name}
            for name in self._names()
        ]
        return json.dumps(entries).encode()

    def _names(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()
        )

    def _repository(self) -> bytes:
        siblings = [{"rfilename": name} for name in self._names()]
        return json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
