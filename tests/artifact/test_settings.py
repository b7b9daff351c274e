"""MODEL_URI, as the configuration checks it."""

from __future__ import annotations

import pytest

from handlers.config import Settings
from handlers.errors import SettingsError


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket",
        "s3://bucket/a/prefix/",
        "gs://bucket.example/a",
        "https://host.example:8443/a/b%20c",
        "http://127.0.0.1:9000/a",
        "http://localhost/a",
    ],
)
def test_a_uri_of_a_known_scheme_is_taken(uri: str) -> None:
    assert Settings.from_environ({"MODEL_URI": uri}).model_uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        "bucket/prefix",
        "ftp://host/a",
        "S3://bucket/a",
        "s3:/bucket/a",
        "s3://",
        "s3:///a",
        "file:///model",
        "http://host.example/a",
        "http://127.0.0.1.example/a",
        "https://host/a?signature=secret",
        "https://user:secret@host/a",
        "https://host/a#secret",
        "s3://bucket/a b",
    ],
)
def test_any_other_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"MODEL_URI must be s3://bucket/prefix") as refused:
        Settings.from_environ({"MODEL_URI": uri})
    assert "secret" not in str(refused.value)


def test_none_is_none() -> None:
    assert Settings.from_environ({}).model_uri is None
    assert Settings.from_environ({"MODEL_URI": ""}).model_uri is None
