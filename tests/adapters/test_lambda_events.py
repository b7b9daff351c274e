"""Every kind of event, read and answered in its own shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.api.inline import run_inline
from handlers.api.messages import Request, Response
from handlers.errors import InvalidRequest, RequestError
from handlers.lambda_call import Call
from handlers.lambda_events import DIRECT, kind_of, parse
from tests.api.client import Client, saying
from tests.support.aws_events import (
    HTTP_KINDS,
    Event,
    HttpCall,
    function_url,
    http_api,
    load_balancer,
    multi_value_load_balancer,
    rest_api,
)

ANSWER = Response(200, {"content-type": "application/json"}, b'{"answer": "Z\xc3\xbcrich"}')


def http_api_1(call: HttpCall) -> Event:
    """Of an HTTP API whose integration asks for payload 1.0: a REST API's with a version."""
    return rest_api(call) | {"version": "1.0"}


every_kind = pytest.mark.parametrize("wrap", HTTP_KINDS, ids=lambda wrap: wrap.__name__)
Wrap = Callable[[HttpCall], Event]


def read(event: Event) -> Request:
    return kind_of(event).read(event)


@every_kind
def test_a_request_reads_the_same_through_every_kind(wrap: Wrap) -> None:
    call = HttpCall("POST", "/v1/chat/completions", b'{"a": 1}', {"Authorization": "Bearer key"})
    request = replace(read(wrap(call)), inner_paths=())
    stage = "/live" if wrap is http_api else ""
    assert request == Request(
        method="POST",
        path=f"{stage}/v1/chat/completions",
        query={},
        headers={"authorization": "Bearer key"},
        body=b'{"a": 1}',
    )


@every_kind
@given(
    query=st.dictionaries(st.text(min_size=1), st.text(), max_size=3),
    body=st.binary() | st.text().map(str.encode),
)
def test_query_and_body_arrive_as_they_were_sent(
    wrap: Wrap, query: dict[str, str], body: bytes
) -> None:
    request = read(wrap(HttpCall("POST", "/generate", body, {}, query)))
    assert request.query == query
    assert request.body == body


@every_kind
def test_a_path_is_percent_decoded(wrap: Wrap) -> None:
    event = wrap(HttpCall("GET", "/"))
    path = "rawPath" if "rawPath" in event else "path"
    event[path] = "/v1/models/a%20b%2Fc"
    assert read(event).path == "/v1/models/a b/c"


API = Client(saying("yes"), {"KINDLING_BASE_PATH": "/base"}).api


def model_list(event: Event) -> int:
    """The status of the answer to an event that asks for the models."""
    answer = run_inline(API.handle(read(event)))
    assert isinstance(answer, Response)
    assert answer.status != 200 or json.loads(answer.body)["object"] == "list"
    return answer.status


def http_api_event(path: str, stage: str, **parameters: str) -> Event:
    event = http_api(HttpCall("GET", "/"))
    context = event["requestContext"] | {"stage": stage}
    return event | {"rawPath": path, "requestContext": context, "pathParameters": parameters}


def proxy_event(path: str, stage: str, route: str = "/{proxy+}", **parameters: str) -> Event:
    event = rest_api(HttpCall("GET", path))
    context = event["requestContext"] | {"stage": stage}
    routed = {"resource": route, "pathParameters": parameters or None}
    return event | {"requestContext": context, **routed}


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("/dev/v1/models", "dev"),
        ("/dev/models/", "dev"),
        ("/dev/base/v1/models", "dev"),
        ("/base/v1/models", "$default"),
        ("/v1/v1/models", "v1"),
        ("/v1/models", "v1"),  # through a custom domain at the root
        ("/v1/models", "$default"),
        ("/models/v1/models", "models"),
        ("/generate/v1/models", "generate"),
    ],
)
def test_a_stage_is_taken_off_where_the_path_fits_without_it_alone(path: str, stage: str) -> None:
    events = [http_api_event(path, stage), proxy_event(path, stage) | {"version": "1.0"}]
    assert [model_list(event) for event in events] == [200, 200]


@pytest.mark.parametrize("path", ["/dev", "/dev/", "/developers/v1/models", "/v1/dev/models"])
def test_a_stage_is_a_whole_part_at_the_beginning(path: str) -> None:
    assert model_list(http_api_event(path, "dev")) == 404


@pytest.mark.parametrize(
    ("path", "route", "parameters"),
    [
        ("/llm/v1/models", "/{proxy+}", {"proxy": "v1/models"}),
        ("/llm/v1/models", "/{rest+}", {"rest": "v1/models"}),
        ("/a/llm/v1/models", "/llm/{proxy+}", {"proxy": "v1/models"}),
        ("/llm/v1/models", "/v1/{proxy+}", {"proxy": "models"}),
        ("/llm/v1/models", "/v1/models", {}),
        ("/llm/v1/models", "/{version}/models", {"version": "v1"}),
    ],
)
def test_the_gateways_own_route_tells_what_a_base_path_is(
    path: str, route: str, parameters: dict[str, str]
) -> None:
    assert model_list(proxy_event(path, "prod", route, **parameters)) == 200


def test_what_the_gateway_routed_counts_only_where_it_ends_the_path() -> None:
    assert model_list(proxy_event("/models/other", "prod", "/{a}/other", a="models")) == 404


def test_null_contexts_and_parameters_are_none() -> None:
    event = proxy_event("/v1/models", "") | {"requestContext": None, "resource": ""}
    assert model_list(event) == 200
    stage = {"requestContext": {"stage": None}}
    assert model_list(proxy_event("/None/v1/models", "") | stage) == 404


def test_of_a_repeated_query_parameter_the_last_counts() -> None:
    url = function_url(HttpCall("GET", "/")) | {"rawQueryString": "prompt=a&prompt=b"}
    balancer = multi_value_load_balancer(HttpCall("GET", "/")) | {
        "multiValueQueryStringParameters": {"prompt": ["a", "b"]}
    }
    assert read(url).query == read(balancer).query == {"prompt": "b"}


@pytest.mark.parametrize(
    ("wrap", "headers"),
    [
        (function_url, {"headers": {"content-type": "application/json"}}),
        (http_api, {"headers": {"content-type": "application/json"}}),
        (rest_api, {"headers": {"content-type": "application/json"}}),
        (
            load_balancer,
            {"headers": {"content-type": "application/json"}, "statusDescription": "200 OK"},
        ),
        (
            multi_value_load_balancer,
            {
                "multiValueHeaders": {"content-type": ["application/json"]},
                "statusDescription": "200 OK",
            },
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_answer_has_the_shape_of_its_kind(wrap: Wrap, headers: Event) -> None:
    written = kind_of(wrap(HttpCall("GET", "/"))).write(ANSWER)
    assert written == headers | {
        "statusCode": 200,
        "body": '{"answer": "Zürich"}',
        "isBase64Encoded": False,
    }


@pytest.mark.parametrize(
    ("wrap", "megabytes", "seconds"),
    [
        (function_url, 6, None),
        (http_api, 6, 30),
        (http_api_1, 6, 30),
        (rest_api, 6, 29),
        (load_balancer, 1, None),
        (multi_value_load_balancer, 1, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_kind_knows_what_its_sender_can_carry(
    wrap: Wrap, megabytes: int, seconds: float | None
) -> None:
    kind = kind_of(wrap(HttpCall("GET", "/")))
    assert (kind.max_response_bytes, kind.max_seconds) == (megabytes * 2**20, seconds)


def test_a_function_url_alone_passes_streams_on() -> None:
    """docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html"""
    limits = [kind_of(wrap(HttpCall("GET", "/"))).max_stream_bytes for wrap in HTTP_KINDS]
    assert limits == [200 * 2**20, None, None, None, None]
    assert DIRECT.max_stream_bytes is None


class Refusing:
    """As much of an Api as a refusal needs."""

    def refuse(self, error: RequestError, _headers: object) -> Response:
        return Response(error.status, {}, str(error).encode())


def test_a_whole_answer_over_what_a_stream_carries_is_refused() -> None:
    call = Call.of(function_url(HttpCall("GET", "/")), "name")
    small = replace(call, kind=replace(call.kind, max_stream_bytes=len(ANSWER.body) - 1))
    service: Any = SimpleNamespace(api=Refusing())
    assert call.fit_for_stream(service, ANSWER) is ANSWER
    assert small.fit_for_stream(service, ANSWER).status == 413


def test_a_body_that_is_not_text_is_answered_in_base64() -> None:
    binary = Response(200, {"content-type": "application/octet-stream"}, b"\xff\x00")
    written = kind_of(function_url(HttpCall("GET", "/"))).write(binary)
    assert (written["body"], written["isBase64Encoded"]) == ("/wA=", True)


def test_a_direct_invoke_is_a_chat_request_and_gets_the_bare_answer() -> None:
    event = {"messages": [{"role": "user", "content": "Zürich \ud800"}]}
    kind = kind_of(event)
    assert kind is DIRECT
    request = kind.read(event)
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert json.loads(request.body) == event
    assert kind.write(ANSWER) == {"answer": "Zürich"}


def test_a_direct_invoke_gets_an_error_with_its_status_and_a_stream_as_text() -> None:
    error = Response(
        429, {"content-type": "application/json"}, b'{"error": {"code": "overloaded"}}'
    )
    stream = Response(200, {"content-type": "text/event-stream; charset=utf-8"}, b"data: {}\n\n")
    assert DIRECT.write(error) == {"status": 429, "error": {"code": "overloaded"}}
    assert DIRECT.write(stream) == "data: {}\n\n"


def test_raw_bytes_are_parsed_as_the_json_that_they_are() -> None:
    assert parse(b'{"messages": []}') == {"messages": []}


@pytest.mark.parametrize("event", [b"not JSON", b"\xff", [], "text", 3, None])
def test_what_is_not_an_object_is_refused(event: object) -> None:
    with pytest.raises(InvalidRequest, match="The event is not"):
        parse(event)


def test_an_event_of_another_service_is_refused_by_naming_its_keys() -> None:
    queue = {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}
    with pytest.raises(InvalidRequest, match=r"none of them; its keys: Records\."):
        kind_of(queue)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"rawPath": None}, r"Expected `str`, got `null` - at `\$\.rawPath`"),
        ({"body": 3}, r"Expected `str \| null`, got `int` - at `\$\.body`"),
        ({"body": "?", "isBase64Encoded": True}, "The body is not base64"),
    ],
)
def test_a_damaged_event_is_refused_by_naming_the_damage(damage: Event, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(function_url(HttpCall("POST", "/")) | damage)


def test_half_a_surrogate_pair_reaches_the_api_as_invalid_utf8() -> None:
    event = function_url(HttpCall("POST", "/")) | {"body": "\ud800"}
    assert read(event).body == b"\xed\xa0\x80"
