"""Tests what a person is told when a model cannot be fetched."""

from __future__ import annotations

import json
import threading

import pytest

from handlers.artifact import object_store
from handlers.artifact.download import fetch
from handlers.errors import ArtifactError, FetchError
from tests.artifact.conftest import fetched, manifest_of, model_files
from tests.support.object_servers import Answer, Fault, Place

DATA = "model.onnx.data"


def test_what_is_not_there_is_named(place: Place) -> None:
    place.proxy.faults.append(Fault("LICENSE", status=404))
    with pytest.raises(FetchError, match=f"{place.uri}/LICENSE does not exist"):
        fetched(place)
    with pytest.raises(
        FetchError, match=r"nowhere/manifest\.json does not exist\. MODEL_URI names"
    ):
        fetch(f"{place.uri}/nowhere")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_access_is_needed(place: Place, status: int) -> None:
    place.proxy.faults.append(Fault("manifest.json", status=status))
    with pytest.raises(FetchError, match=r"manifest.json may not be read\. ") as refused:
        fetch(place.uri)
    needed = {
        "s3": "needs s3:GetObject on arn:aws:s3:::models/smollm/int4/*, and kms:Decrypt",
        "gs": "needs roles/storage.objectViewer on the bucket",
        "ht": "sends no credentials over https",
    }
    assert needed[place.uri[:2]] in str(refused.value)


def test_a_server_that_cannot_be_reached_is_named(no_retries: None) -> None:
    refused = r"127\.0\.0\.1:9/model/manifest\.json cannot be fetched: .* \(Connection refused\)"
    with pytest.raises(FetchError, match=refused):
        fetch("http://127.0.0.1:9/model")


def test_missing_credentials_are_no_riddle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "METADATA_SERVERS", ("127.0.0.1:9",))
    monkeypatch.setitem(object_store.RETRY, "max_retries", 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with pytest.raises(FetchError, match=r"for want of credentials\. The role .* s3:GetObject"):
        fetch("s3://models/smollm")


def test_a_server_without_ranges_is_refused(web: Place) -> None:
    get = web.proxy.get
    web.proxy.get = lambda path, _: get(path, {})
    with pytest.raises(FetchError, match="its server does not answer requests for ranges"):
        fetched(web)


def test_a_manifest_that_is_none_is_an_error(web: Place) -> None:
    web.put("manifest.json", b"<html>")
    with pytest.raises(ArtifactError, match=r"int4/manifest\.json is not a manifest"):
        fetch(web.uri)


@pytest.mark.parametrize(
    "name",
    [
        "../../elsewhere",
        "/nowhere/file",
        "..",
        ".lock",
        "a/b",
        "",
        "a\0b",
        "a\nb",
        "a\n",
        "a" * 300,
    ],
)
def test_a_manifest_cannot_have_anything_written_elsewhere(web: Place, name: str) -> None:
    web.put("manifest.json", manifest_of(model_files() | {name: b"evil"}))
    with pytest.raises(ArtifactError, match="which is no file's name"):
        fetch(web.uri)


S3_ERROR = b"""<?xml version="1.0"?>
<Error><Code>%b</Code>
<Message>The provided token has expired.</Message><Token-0>SECRET-TOKEN</Token-0></Error>"""


@pytest.mark.parametrize("status", [302, 400, 403, 409, 500])
def test_what_an_answer_says_besides_its_code_is_not_repeated(
    web: Place, monkeypatch: pytest.MonkeyPatch, no_retries: None, status: int
) -> None:
    headers = {"Location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    answer = Answer(status, headers, S3_ERROR % b"Whatever" + b"<p>SECRET-PAGE" * 300)
    monkeypatch.setattr(web.proxy, "get", lambda *_: answer)
    with pytest.raises(FetchError) as refused:
        fetch(web.uri)
    message = str(refused.value)
    assert message.startswith(f"{web.uri}/manifest.json ")
    assert "SECRET" not in message
    assert "\n" not in message
    assert len(message) < 500
    assert ("(Whatever)" in message) == (status in {400, 409, 500})


def test_credentials_that_have_expired_are_named(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.proxy, "get", lambda *_: Answer(400, {}, S3_ERROR % b"ExpiredToken"))
    with pytest.raises(FetchError, match=r"credentials are not valid \(ExpiredToken\)\. Kindling"):
        fetch(web.uri)


def test_readers_that_wait_for_the_first_answer_fail_with_it(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(object_store.RETRY, "max_retries", 1)
    web.proxy.faults.append(Fault(DATA, times=1000, status=503))
    with pytest.raises(FetchError, match="503"):
        fetched(web)
    for thread in threading.enumerate():
        if thread.name.startswith("read"):
            thread.join()
    assert len([name for name, _ in web.proxy.requests if name == DATA]) == 2


def test_a_file_may_not_be_called_like_anothers_beginning(web: Place) -> None:
    web.put("manifest.json", manifest_of(model_files() | {f"{DATA}.part": b"evil"}))
    with pytest.raises(ArtifactError, match=r"data\.part', which is no file's name"):
        fetch(web.uri)


def test_a_manifest_that_is_longer_than_any_is_not_read(web: Place) -> None:
    web.put("manifest.json", b" " * 5_000_000)
    with pytest.raises(ArtifactError, match="has 5,000,000 bytes, so it is no manifest"):
        fetch(web.uri)


def test_a_size_below_zero_makes_no_manifest(web: Place) -> None:
    manifest = json.loads(manifest_of(model_files()))
    manifest["files"]["LICENSE"]["size"] = -(10**15)
    web.put("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ArtifactError, match=r"is not a manifest: Expected `int` >= 0"):
        fetch(web.uri)
