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

from handlers.api.http import Request, Response, run_sync
from handlers.artifact.manifest import Task
from handlers.aws_lambda.events import EventKind, kind_of, parse
from handlers.aws_lambda.invocation import Invocation
from handlers.config import Settings
from handlers.errors import InvalidRequest, RequestError
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

SETTINGS = Settings.from_environ({})

ANSWER = Response(200, {"content-type": "application/json"}, b'{"answer": "Z\xc3\xbcrich"}')


def http_api_1(call: HttpCall) -> Event:
    """An HTTP API's event with payload 1.0, which is a REST API's with a version."""
    return rest_api(call) | {"version": "1.0"}


every_kind = pytest.mark.parametrize("wrap", HTTP_KINDS, ids=lambda wrap: wrap.__name__)
Wrap = Callable[[HttpCall], Event]


def kind(event: Event, settings: Settings = SETTINGS) -> EventKind:
    return kind_of(event, settings, "text-generation")


def read(event: Event) -> Request:
    return kind(event).read(event)


DIRECT = kind({"prompt": "Once"})


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
    answer = run_sync(API.handle(read(event)))
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
    written = kind_of(wrap(HttpCall("GET", "/")), SETTINGS, "text-generation").write(ANSWER)
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
    kind = kind_of(wrap(HttpCall("GET", "/")), SETTINGS, "text-generation")
    assert (kind.max_response_bytes, kind.max_seconds) == (megabytes * 2**20, seconds)


def test_a_function_url_alone_passes_streams_on() -> None:
    """See docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html."""
    limits = [
        kind_of(wrap(HttpCall("GET", "/")), SETTINGS, "text-generation").max_stream_bytes
        for wrap in HTTP_KINDS
    ]
    assert limits == [200 * 2**20, None, None, None, None]
    assert DIRECT.max_stream_bytes is None


def test_a_rest_api_takes_streams_and_waits_as_it_is_set() -> None:
    variables = {"KINDLING_REST_API": "stream", "KINDLING_REST_SECONDS": "900"}
    settings = Settings.from_environ(variables)
    kinds = [
        kind_of(wrap(HttpCall("GET", "/")), settings, "text-generation") for wrap in HTTP_KINDS
    ]
    payload_1 = kind_of(
        rest_api(HttpCall("GET", "/")) | {"version": "1.0"}, settings, "text-generation"
    )
    limits = [(kind.max_stream_bytes, kind.max_seconds) for kind in (*kinds, payload_1)]
    streamed = 200 * 2**20
    whole = [(None, None)] * 2
    assert limits == [(streamed, None), (None, 30), (streamed, 900), *whole, (None, 30)]


class Refusing:
    """As much of an Api as a refusal needs."""

    task = "text-generation"

    def refuse(self, error: RequestError, _headers: object) -> Response:
        return Response(error.status, {}, str(error).encode())


def test_a_whole_answer_over_what_a_stream_carries_is_refused() -> None:
    service: Any = SimpleNamespace(api=Refusing(), settings=SETTINGS)
    event = function_url(HttpCall("GET", "/"))
    invocation = Invocation.of(service, event, "name", None)
    less = replace(invocation.kind, max_stream_bytes=len(ANSWER.body) - 1)
    assert invocation.as_one_part(ANSWER) is ANSWER
    assert replace(invocation, kind=less).as_one_part(ANSWER).status == 413


def test_a_body_that_is_not_text_is_answered_in_base64() -> None:
    binary = Response(200, {"content-type": "application/octet-stream"}, b"\xff\x00")
    written = kind_of(function_url(HttpCall("GET", "/")), SETTINGS, "text-generation").write(binary)
    assert (written["body"], written["isBase64Encoded"]) == ("/wA=", True)


def test_a_direct_invoke_is_a_chat_request_and_gets_the_bare_answer() -> None:
    event = {"messages": [{"role": "user", "content": "Zürich \ud800"}]}
    kind = kind_of(event, SETTINGS, "text-generation")
    request = kind.read(event)
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert json.loads(request.body) == event
    assert kind.write(ANSWER) == {"answer": "Zürich"}


@pytest.mark.parametrize(
    ("task", "event", "path"),
    [
        ("text-generation", {"prompt": "Once"}, "/v1/completions"),
        ("text-generation", {"input": "Hello"}, "/v1/responses"),
        ("feature-extraction", {"input": ["Hello"], "dimensions": 8}, "/v1/embeddings"),
        ("text-classification", {"input": "Hello"}, "/v1/classify"),
        ("text-ranking", {"query": "Hello", "documents": ["a"]}, "/v1/rerank"),
        ("text-generation", {"query": "Hello", "documents": ["a"]}, "/v1/rerank"),
        ("feature-extraction", {"messages": []}, "/v1/chat/completions"),
    ],
)
def test_a_direct_invoke_goes_where_its_fields_belong(task: Task, event: Event, path: str) -> None:
    request = kind_of(event, SETTINGS, task).read(event)
    assert (request.path, json.loads(request.body)) == (path, event)


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
        kind_of(queue, SETTINGS, "text-generation")


@pytest.mark.parametrize(
    "event",
    [
        {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "warmup"}}]},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {}},
        {"Records": [{"eventSource": "aws:sqs"}], "warm": 1},
        {"eventSource": "aws:mq", "eventSourceArn": "arn", "messages": [{"messageID": "1"}]},
        {"source": "com.example.docker-swarm", "detail-type": "Task", "detail": {}},
        {"source": "com.example.docker-swarm"},
        {"type": "lukewarm-lead"},
        {"action": "stopWarmPool"},
        {"warmup": False},
        {"swarm": True},
        {"warmth": 1},
        {"source": ["serverless-plugin-warmup"]},
        {"input": {"state": 1}},
    ],
    ids=json.dumps,
)
def test_an_event_of_another_kind_is_not_taken_for_a_ping_or_a_request(event: Event) -> None:
    with pytest.raises(InvalidRequest, match="none of them"):
        kind_of(event, SETTINGS, "text-generation")


@pytest.mark.parametrize(
    "event", [{f"{n}@example.com": 1 for n in range(200_000)}, {"a" * 10**6: 1}]
)
def test_an_error_repeats_few_of_an_event_s_keys(event: Event) -> None:
    with pytest.raises(InvalidRequest) as raised:
        kind_of(event, SETTINGS, "text-generation")
    assert len(str(raised.value)) < 600
    assert "3@example.com" not in str(raised.value)


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


NULLS = {
    "headers": None,
    "multiValueHeaders": None,
    "rawQueryString": None,
    "queryStringParameters": None,
    "multiValueQueryStringParameters": None,
    "body": None,
    "isBase64Encoded": None,
}
NULLS_WITHIN = {
    "headers": {"X-A": None},
    "multiValueHeaders": {"X-A": None, "X-B": []},
    "queryStringParameters": {"a": None},
    "multiValueQueryStringParameters": {"a": None},
}


@every_kind
@pytest.mark.parametrize("nulls", [NULLS, NULLS_WITHIN], ids=["in place of", "within"])
def test_null_is_nothing(wrap: Wrap, nulls: Event) -> None:
    """As the test buttons of consoles have it."""
    event = wrap(HttpCall("GET", "/healthz", headers={"X-A": "a"}, query={"a": "b"}))
    request = read({name: nulls.get(name, value) for name, value in event.items()})
    expected = {"a": "b"} if "rawQueryString" in event and nulls is NULLS_WITHIN else {}
    assert (request.headers, request.query, request.body) == ({}, expected, b"")


def test_half_a_surrogate_pair_reaches_the_api_as_invalid_utf8() -> None:
    event = function_url(HttpCall("POST", "/")) | {"body": "\ud800"}
    assert read(event).body == b"\xed\xa0\x80"
