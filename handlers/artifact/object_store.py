"""Reads objects under a URI of S3, Cloud Storage or HTTPS; the only file that imports obstore.

obstore retries what a network breaks, and goes on within a body where it broke off. What it raises
becomes a FetchError here and nowhere else. Credentials are the platform's: on Lambda the role's, on
Cloud Run the service account's, elsewhere those of the variables that obstore documents.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from handlers.config import container_token
from handlers.errors import ArtifactError, FetchError, StartupError

try:
    import obstore
    from obstore import exceptions
    from obstore.store import from_url
except ImportError:
    raise FetchError(
        "MODEL_URI needs the package obstore: build the image with --build-arg MODEL=outside, or "
        "install kindling[remote]."
    ) from None

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import ClientConfig, RetryConfig

# In all at most half a minute: Cloud Run gives a start 4 minutes.
RETRY: RetryConfig = {
    "max_retries": 8,
    "backoff": {
        "base": 2,
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
    },
    "retry_timeout": timedelta(seconds=60),
}

# Whom obstore asks for credentials when it has found none elsewhere.
METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")

# What a failed connection failed by, which obstore's message leaves to the dump that follows it.
CAUSE = re.compile(r'(?:message|error): "([^"]+)"|InvalidCertificate\(\s*(\w+)')

# An answer that is an error. Its body comes after it, and S3's has an expired token in it:
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
STATUS = re.compile(r"(.*?non-2xx status code: [^:]*):", re.DOTALL)
CODE = re.compile(r"<Code>(\w{1,64})</Code>")
EXPIRED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
LONGEST = 300

ACCESS = {
    "s3": "The role that runs this needs s3:GetObject on arn:aws:s3:::{path}/*, and kms:Decrypt "
    "if the bucket has a key of its own. Without s3:ListBucket, S3 refuses what is not there too.",
    "gs": "The service account that runs this needs roles/storage.objectViewer on the bucket.",
    "https": "Kindling sends no credentials over https: use s3:// or gs:// for what is not public.",
}
ACCESS["http"] = ACCESS["https"]


class ObjectStore:
    """The objects under one URI."""

    def __init__(self, uri: str) -> None:
        """`uri` as the configuration has checked it. Raises FetchError."""
        self.uri = uri.rstrip("/")
        self._scheme, _, self._path = self.uri.partition("://")
        # Given any options, obstore asks the environment for none: a proxy, an endpoint by http.
        client: ClientConfig | None = {"allow_http": True} if self._scheme == "http" else None
        with self.as_fetch_errors(self.uri):
            self._store: Any = from_url(
                self.uri, client_options=client, retry_config=RETRY, **_credentials(self._scheme)
            )

    def get(self, name: str, options: GetOptions | None = None) -> GetResult:
        """Returns a response; read its body within `as_fetch_errors`. Raises FetchError."""
        with self.as_fetch_errors(name):
            return obstore.get(self._store, name, options=options)

    @contextmanager
    def as_fetch_errors(self, name: str) -> Iterator[None]:
        """Turns what obstore raises into a FetchError."""
        where = self.uri if name == self.uri else f"{self.uri}/{name}"
        try:
            yield
        except FileNotFoundError:
            raise FetchError(
                f"{where} does not exist. MODEL_URI names the place under which manifest.json and "
                f"the files that it lists lie."
            ) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            access = ACCESS[self._scheme].format(path=self._path)
            raise FetchError(f"{where} may not be read. {access}") from None
        except exceptions.PreconditionError:
            raise FetchError(
                f"{where} was changed while it was being fetched. Start again; and put another "
                f"export under another prefix, since processes start at any time."
            ) from None
        except exceptions.NotSupportedError:
            raise FetchError(
                f"{where} can only be had whole: its server does not answer requests for ranges."
            ) from None
        except (exceptions.BaseError, ValueError) as error:
            raise FetchError(self._sentence(where, str(error))) from None

    def _sentence(self, where: str, error: str) -> str:
        access = ACCESS[self._scheme].format(path=self._path)
        if any(server in error for server in METADATA_SERVERS):
            return f"{where} cannot be read, for want of credentials. {access}"
        message, _, dump = error.partition("Debug source:")
        status, code = STATUS.match(message), CODE.search(message)
        if code and code[1] in EXPIRED:
            return f"{where} may not be read: the credentials are not valid ({code[1]}). {access}"
        cause = CAUSE.search(dump)
        reason = code[1] if code else (cause[1] or cause[2]) if cause else None
        why = f" ({reason})" if reason else ""
        line = " ".join((status[1] if status else message).split())
        return f"{where} cannot be fetched: {line[:LONGEST]}{why[:LONGEST]}"


class RemoteFile:
    """One object, read in parts that are all of one version, from any thread."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store, self._name, self._size = store, name, size
        self._first = threading.Lock()
        self._pin: GetOptions | None = None
        self._failed: StartupError | None = None

    def read(self, start: int, stop: int) -> memoryview:
        """Returns bytes [start : stop]. Raises FetchError, and ArtifactError for a wrong size."""
        result = self._pinned(start, stop)
        with self._store.as_fetch_errors(self._name):
            content = memoryview(result.bytes())
        if len(content) != stop - start:
            raise self._wrong_size(start + len(content))
        return content

    def _pinned(self, start: int, stop: int) -> GetResult:
        """Reads a part of the version that the first response had; until then other readers wait.

        If that one fails, with all its retries, they fail with it and ask for nothing.
        """
        with self._first:
            if self._failed is not None:
                raise self._failed
            if self._pin is None:
                try:
                    return self._pinning(start, stop)
                except StartupError as error:
                    self._failed = error
                    raise
        return self._store.get(self._name, {**self._pin, "range": (start, stop)})

    def _pinning(self, start: int, stop: int) -> GetResult:
        result = self._store.get(self._name, {"range": (start, stop)})
        if result.meta["size"] != self._size:
            raise self._wrong_size(result.meta["size"])
        etag = result.meta["e_tag"]
        # A weak one never matches: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1
        strong = etag is not None and not etag.startswith("W/")
        self._pin = {"if_match": etag} if strong else {}
        return result

    def _wrong_size(self, size: int) -> ArtifactError:
        return ArtifactError(
            f"{self._store.uri}/{self._name} has {size:,} bytes where its manifest says "
            f"{self._size:,}: upload all files of one export, manifest.json last."
        )


def _credentials(scheme: str) -> dict[str, Any]:
    """Writes Lambda's token for credentials (SnapStart) to a file, as obstore wants it.

    The file stays open for the process's life.
    """
    token = container_token()
    if scheme != "s3" or token is None:
        return {}
    file = os.memfd_create("token")
    os.write(file, token.encode())
    return {"container_authorization_token_file": f"/proc/self/fd/{file}"}
