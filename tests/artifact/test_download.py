"""Fetching a model from real servers that break in the middle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from handlers.artifact.download import fetch
from handlers.artifact.manifest import Artifact
from handlers.artifact.parallel_read import THREADS
from handlers.errors import ArtifactError, FetchError
from tests.artifact.conftest import PART, WEIGHTS, fetched, manifest_of, model_files, put_model
from tests.support.object_servers import Answer, Fault, Place

DATA = "model.onnx.data"


def test_every_file_arrives_as_it_is(place: Place, cache: Path) -> None:
    artifact = fetched(place)
    assert artifact == Artifact.open(artifact.directory)
    assert artifact.directory.is_relative_to(cache)
    for name, content in model_files().items():
        assert (artifact.directory / name).read_bytes() == content
    assert not list(artifact.directory.glob("*.part"))


def test_text_is_there_before_the_weights_are(place: Place) -> None:
    place.proxy.faults.append(Fault(DATA, seconds=0.5, times=100))
    artifact, weights = fetch(place.uri)
    assert artifact.tokenizer.read_bytes() == b"{}"
    assert not weights.done()
    weights.result()


def test_the_text_does_not_wait_for_a_draft_model(place: Place) -> None:
    files = model_files() | {"draft.onnx.data": WEIGHTS, "draft.onnx": b"draft", "draft.kv": b"kv"}
    for name, content in (files | {"manifest.json": manifest_of(files)}).items():
        place.put(name, content)
    place.proxy.faults.append(Fault("draft.onnx.data", seconds=0.5, times=100))
    artifact, weights = fetch(place.uri)
    assert not weights.done()
    weights.result()
    assert {path.name for path in artifact.directory.iterdir()} >= set(files)


def test_a_fetched_model_is_not_fetched_again(place: Place) -> None:
    fetched(place)
    place.proxy.requests.clear()
    fetched(place)
    assert [name for name, _ in place.proxy.requests] == ["manifest.json"]


def test_another_export_under_the_same_uri_is_fetched(place: Place) -> None:
    old = fetched(place)
    put_model(place, WEIGHTS[::-1])
    new = fetched(place)
    assert (new.directory / DATA).read_bytes() == WEIGHTS[::-1]
    assert (old.directory / DATA).read_bytes() == WEIGHTS


def test_broken_connections_and_a_busy_server_cost_only_what_was_lost(place: Place) -> None:
    place.proxy.faults += [
        Fault(DATA, skip=2, cut=PART // 2, times=3),
        Fault(DATA, skip=9, status=503),
        Fault("manifest.json", status=500),
    ]
    artifact = fetched(place)
    assert (artifact.directory / DATA).read_bytes() == WEIGHTS
    assert place.proxy.fetched(DATA) < len(WEIGHTS) + 4 * PART


def test_a_fetch_that_broke_off_is_gone_on_with(place: Place, no_retries: None) -> None:
    place.proxy.faults.append(Fault(DATA, skip=24, times=100, status=503))
    with pytest.raises(FetchError, match=f"{DATA} cannot be fetched: .*503"):
        fetched(place)
    place.proxy.faults.clear()
    place.proxy.requests.clear()
    assert (fetched(place).directory / DATA).read_bytes() == WEIGHTS
    # Of the 24 parts some came out of order, and some of the first fetch's may have come late.
    assert 0 < place.proxy.fetched(DATA) <= len(WEIGHTS) - (24 - 2 * THREADS) * PART


def test_an_object_that_changes_between_its_parts_is_an_error(place: Place) -> None:
    change = Fault(DATA, skip=12, before=lambda: place.put(DATA, WEIGHTS[::-1]))
    place.proxy.faults.append(change)
    with pytest.raises(FetchError, match=f"{DATA} was changed while it was being fetched"):
        fetched(place)


def test_a_file_of_another_export_is_an_error_and_not_kept(place: Place) -> None:
    place.put(DATA, WEIGHTS[::-1])
    with pytest.raises(ArtifactError, match=f"{DATA} is not the file .* sha256 differs"):
        fetched(place)
    place.put(DATA, WEIGHTS)
    fetched(place)


def test_a_file_of_another_size_is_an_error_before_it_is_fetched(place: Place) -> None:
    place.put(DATA, WEIGHTS[:-1])
    with pytest.raises(ArtifactError, match="has 301,199 bytes where its manifest says 301,200"):
        fetched(place)
    assert place.proxy.fetched(DATA) <= THREADS * PART  # whose answers said it, and nobody read


def test_a_weak_etag_pins_nothing(web: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    get = web.proxy.get

    def weak(path: str, headers: Mapping[str, str]) -> Answer:
        if "if-match" in headers:
            return Answer(412, {}, b"")
        answer = get(path, headers)
        return Answer(answer.status, {**answer.headers, "ETag": 'W/"weak"'}, answer.body)

    monkeypatch.setattr(web.proxy, "get", weak)
    assert (fetched(web).directory / DATA).read_bytes() == WEIGHTS


def test_the_token_that_snap_start_gives_buys_the_credentials(
    monkeypatch: pytest.MonkeyPatch, web: Place
) -> None:
    """Lambda's own server of credentials asks for the token in a header."""
    seen: list[str] = []
    web.put("manifest.json", b"")
    get = web.proxy.get

    def answer(path: str, headers: Mapping[str, str]) -> Answer:
        seen.append(headers.get("authorization", ""))
        return get(path, headers)

    monkeypatch.setattr(web.proxy, "get", answer)
    credentials = {
        "AccessKeyId": "key-of-the-role",
        "SecretAccessKey": "secret",
        "Token": "session",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    web.put("credentials", json.dumps(credentials).encode())
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{web.uri}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token-of-the-sandbox")
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.proxy.url)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    with pytest.raises(FetchError):
        fetch("s3://models/smollm")
    assert seen[0] == "token-of-the-sandbox"
    assert "Credential=key-of-the-role/" in seen[1]


def test_what_was_fetched_is_logged(web: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "handlers.artifact"):
        fetched(web)
        fetched(web)
    assert [record.message for record in caplog.records] == ["fetched", "found"]
    first = msgspec.convert(caplog.records[0].__dict__["fields"], dict[str, object])
    assert (first["uri"], first["bytes"]) == (web.uri, 301_707)


def test_a_file_that_lost_bytes_since_is_fetched_again(web: Place) -> None:
    os.truncate(fetched(web).directory / DATA, 0)
    assert (fetched(web).directory / DATA).read_bytes() == WEIGHTS


@pytest.mark.parametrize("left", [b"spoilt" * 100, WEIGHTS[::-1], WEIGHTS + b"more"])
def test_a_beginning_of_other_bytes_costs_one_more_fetch_and_no_start(
    web: Place, left: bytes
) -> None:
    directory = fetched(web).directory
    (directory / DATA).unlink()
    (directory / f"{DATA}.part").write_bytes(left)
    assert (fetched(web).directory / DATA).read_bytes() == WEIGHTS
