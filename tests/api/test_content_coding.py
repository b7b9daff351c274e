"""Compressed bodies: read as what they were or refused by name, never expanded past the limit."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import msgspec
import pytest
from backports import zstd

from handlers.api.content_coding import decompress
from handlers.api.http import Response
from handlers.errors import RequestTooLarge
from tests.api.client import Client, saying

CHAT = "/v1/chat/completions"
BODY = msgspec.json.encode({"messages": [{"role": "user", "content": "Hello"}]})
Compress = Callable[[bytes], bytes]


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body, wbits=-zlib.MAX_WBITS)


def zstd_stream(body: bytes) -> bytes:
    """Without its size in the head, as a client sends what it does not know the end of."""
    compressor = zstd.ZstdCompressor()
    return compressor.compress(body) + compressor.flush()


WAYS: list[tuple[str, Compress]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd.compress),
    ("zstd", zstd_stream),
]
every_way = pytest.mark.parametrize(
    ("coding", "compress"), WAYS, ids=lambda value: getattr(value, "__name__", value)
)


def post(body: bytes, coding: str, **environ: str) -> Response:
    client = Client(saying("yes"), environ)
    answer = client.send("POST", CHAT, body, headers={"content-encoding": coding})
    assert isinstance(answer, Response)
    return answer


def message(answer: Response) -> str:
    text: str = msgspec.json.decode(answer.body)["error"]["message"]
    return text


@every_way
def test_a_compressed_body_is_read_as_what_it_was(coding: str, compress: Compress) -> None:
    assert post(compress(BODY), coding).status == 200


@pytest.mark.parametrize("header", ["GZIP", " gzip ", "x-gzip", "identity, gzip", "gzip,", ",gzip"])
def test_a_coding_is_known_however_it_is_written(header: str) -> None:
    assert post(gzip.compress(BODY), header).status == 200


@pytest.mark.parametrize("header", ["", "identity", "Identity", "identity, identity", " , "])
def test_identity_is_no_coding(header: str) -> None:
    assert post(BODY, header).status == 200


@pytest.mark.parametrize("header", ["br", "compress", "gzip, gzip", "zstd, gzip", "x" * 9999])
def test_another_coding_is_refused_by_name_with_those_that_are_read(header: str) -> None:
    answer = post(BODY, header)

    assert answer.status == 415
    assert answer.headers["accept-encoding"] == "gzip, deflate, zstd, identity"
    assert header[:100] in message(answer)
    assert len(message(answer)) < 500


@every_way
@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:-1],
        lambda body: body[: len(body) // 2],
        lambda body: body[:1],
        lambda body: body + b"\0",
        lambda body: body + body,
        lambda body: b"{" + body,
        lambda body: body[:0] + BODY,
        lambda body: body[:0] + b"\xff" * 100,
    ],
    ids=["cut", "half", "one byte", "a byte more", "twice", "a byte before", "plain", "noise"],
)
def test_a_broken_stream_is_answered_by_naming_the_header(
    coding: str, compress: Compress, damage: Compress
) -> None:
    answer = post(damage(compress(BODY)), coding)

    assert answer.status == 400
    assert "content-encoding" in message(answer)


def test_a_body_of_no_bytes_is_empty_whatever_its_coding() -> None:
    assert "content-encoding" not in message(post(b"", "gzip"))


@every_way
def test_the_limit_is_that_of_the_body_as_it_was(coding: str, compress: Compress) -> None:
    body = BODY + b" " * 10_000
    at_limit = post(compress(body), coding, KINDLING_MAX_BODY_BYTES=str(len(body)))
    over = post(compress(body), coding, KINDLING_MAX_BODY_BYTES=str(len(body) - 1))

    assert (at_limit.status, over.status) == (200, 413)


@every_way
def test_a_bomb_is_not_expanded_past_the_limit(coding: str, compress: Compress) -> None:
    limit = 100_000
    bomb = compress(bytes(100_000_000))
    decompress(compress(BODY), coding, limit)  # what it imports is no part of the bomb
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            decompress(bomb, coding, limit)
        assert tracemalloc.get_traced_memory()[1] < len(bomb) + 3 * limit
    finally:
        tracemalloc.stop()


@every_way
def test_a_body_of_many_megabytes_is_read_where_the_limit_lets_it(
    coding: str, compress: Compress
) -> None:
    body = random.Random(0).randbytes(12_000_000)

    assert decompress(compress(body), coding, len(body)) == body


def test_a_window_of_more_than_http_knows_is_refused() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    answer = post(compressor.compress(bytes(1000)) + compressor.flush(), "zstd")

    assert (answer.status, "memory" in message(answer)) == (400, True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_the_coding_of_a_body_that_nobody_reads_is_nobodys_matter(method: str) -> None:
    answer = Client(saying("")).send(method, "/v1/models", headers={"content-encoding": "br"})

    assert answer.status < 400
