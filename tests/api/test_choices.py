"""Several choices, logprobs and echoes, in OpenAI's shapes, whole and streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.api.http import Response, StreamResponse
from handlers.engine.params import FinishReason, Logprobs, Prompt, Step
from tests.api.client import TOKENIZER, Client, saying, usage
from tests.support.scripted_engine import ScriptedEngine, ScriptedGeneration, steps

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
USER: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
USAGE = {"stream_options": {"include_usage": True}}
BODIES: dict[str, dict[str, Any]] = {CHAT: USER, TEXT: {"prompt": "Hello"}}
LOGPROBS = {CHAT: {"logprobs": True, "top_logprobs": 1}, TEXT: {"logprobs": 1}}
both = pytest.mark.parametrize("path", BODIES)


def scored(text: str, end: FinishReason = FinishReason.EOS) -> list[Step]:
    """The answer's steps, each id with a logprob of its own and id 1 beside it."""
    ids = TOKENIZER.encode(text)
    tokens = [
        Step(token_id, logprobs=Logprobs(token_id, -place / 8, ((1, -0.25),)))
        for place, token_id in enumerate(ids)
    ]
    return [*tokens, Step(None, end)]


def echoing(prompt_ids: list[int], answer: list[Step]) -> list[Step]:
    """The answer's steps, the first with the prompt's logprobs."""
    logprobs = (None, *(Logprobs(token_id, -2.0, ()) for token_id in prompt_ids[1:]))
    return [replace(answer[0], prompt_logprobs=logprobs), *answer[1:]]


class OutOfOrder(ScriptedEngine):
    """Gives the steps of the last choice first."""

    def submit_all(
        self, prompts: Sequence[Prompt], deadline: float | None = None
    ) -> ScriptedGeneration:
        super().submit_all(prompts, deadline)
        scripts = reversed([*enumerate(self.scripts or ())])
        reordered = [replace(step, index=index) for index, script in scripts for step in script]
        self.generation = ScriptedGeneration(reordered, prompts)
        return self.generation


def put_together(path: str, chunks: list[Any]) -> list[dict[str, Any]]:
    """Each choice of a stream as the unstreamed answer has it."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk["choices"]:
            text = part["text"] if path == TEXT else part["delta"].get("content") or ""
            choice = choices.setdefault(
                part["index"], {"text": "", "logprobs": [], "finish_reason": None}
            )
            choice["text"] += text
            choice["logprobs"] += pieces_of(part["logprobs"])
            choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
    return [choices[index] for index in sorted(choices)]


def whole_of(path: str, body: Any) -> list[dict[str, Any]]:
    return [
        {
            "text": choice["text"] if path == TEXT else choice["message"]["content"],
            "logprobs": pieces_of(choice["logprobs"]),
            "finish_reason": choice["finish_reason"],
        }
        for choice in body["choices"]
    ]


def pieces_of(logprobs: Any) -> list[Any]:
    """One item for each token, in either of the two shapes."""
    if logprobs is None:
        return []
    if "content" in logprobs:
        return list(logprobs["content"])
    return list(zip(*logprobs.values(), strict=True))


words = st.text("abé🦊 ", max_size=10)


@both
@given(
    texts=st.lists(words, min_size=1, max_size=4),
    stops=st.lists(st.text("abé🦊", min_size=1, max_size=2), max_size=2),
    ends=st.lists(st.sampled_from([FinishReason.EOS, FinishReason.LENGTH]), min_size=4, max_size=4),
)
def test_the_joined_stream_is_the_whole_answer_of_every_choice(
    path: str, texts: list[str], stops: list[str], ends: list[FinishReason]
) -> None:
    scripts = [scored(text, end) for text, end in zip(texts, ends, strict=False)]
    body = BODIES[path] | LOGPROBS[path] | USAGE | {"n": len(texts), "stop": stops}

    whole = Client(ScriptedEngine(scripts=scripts)).json("POST", path, body)
    *chunks, last, done = Client(ScriptedEngine(scripts=scripts)).events(path, body)

    assert put_together(path, chunks) == whole_of(path, whole)
    assert last["usage"] == whole["usage"]
    assert done == "[DONE]"


@both
def test_choices_are_counted_by_their_index(path: str) -> None:
    engine = ScriptedEngine(scripts=[scored("one"), scored("two")])

    body = Client(engine).json("POST", path, BODIES[path] | {"n": 2})

    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["text"] for choice in whole_of(path, body)] == ["one", "two"]
    completion = sum(len(TOKENIZER.encode(text)) for text in ("one", "two"))
    assert body["usage"] == usage(len(engine.prompt_ids), completion)


@both
def test_with_a_seed_every_choice_has_its_own(path: str) -> None:
    engine = saying("yes")

    Client(engine).json("POST", path, BODIES[path] | {"n": 3, "seed": 7})
    assert [prompt.params.seed for prompt in engine.prompts] == [7, 8, 9]

    Client(engine).json("POST", path, BODIES[path] | {"n": 2})
    assert [prompt.params.seed for prompt in engine.prompts] == [None, None]


def test_every_choice_of_a_chats_stream_opens_with_its_role() -> None:
    *chunks, _ = Client(saying("yes")).events(CHAT, USER | {"n": 2})

    roles = [chunk["choices"][0] for chunk in chunks[:2]]
    assert [(role["index"], role["delta"]) for role in roles] == [
        (index, {"role": "assistant", "content": ""}) for index in (0, 1)
    ]


def test_a_chats_tokens_have_openais_shape() -> None:
    (token_id,) = TOKENIZER.encode("e")
    step = Step(token_id, logprobs=Logprobs(token_id, -0.5, ((token_id, -0.5), (1, -1.5))))

    body = Client(ScriptedEngine([step, *steps([])])).json(
        "POST", CHAT, USER | {"logprobs": True, "top_logprobs": 2}
    )

    other = TOKENIZER.token_bytes[1]
    chosen = {"token": "e", "logprob": -0.5, "bytes": [ord("e")]}
    beside = {"token": other.decode(), "logprob": -1.5, "bytes": list(other)}
    assert body["choices"][0]["logprobs"] == {
        "content": [chosen | {"top_logprobs": [chosen, beside]}],
        "refusal": None,
    }


def test_a_texts_tokens_have_openais_older_shape() -> None:
    first, second = TOKENIZER.encode("be")
    tokens = [
        Step(first, logprobs=Logprobs(first, -0.5, ((1, -0.25),))),
        Step(second, logprobs=Logprobs(second, -0.125, ((second, -0.125),))),
    ]

    body = Client(ScriptedEngine([*tokens, *steps([])])).json(
        "POST", TEXT, {"prompt": "Hello", "logprobs": 1}
    )

    assert body["choices"][0]["logprobs"] == {
        "tokens": ["b", "e"],
        "token_logprobs": [-0.5, -0.125],
        "top_logprobs": [{TOKENIZER.token_bytes[1].decode(): -0.25, "b": -0.5}, {"e": -0.125}],
        "text_offset": [0, 1],
    }


@pytest.mark.parametrize(
    ("path", "fields", "asked"),
    [
        (CHAT, {}, None),
        (CHAT, {"logprobs": False, "top_logprobs": 0}, None),
        (CHAT, {"logprobs": True}, 0),
        (CHAT, {"logprobs": True, "top_logprobs": 20}, 20),
        (TEXT, {}, None),
        (TEXT, {"logprobs": 0}, 0),
        (TEXT, {"logprobs": 5}, 5),
    ],
)
def test_the_engine_tells_only_what_is_asked_for(
    path: str, fields: dict[str, Any], asked: int | None
) -> None:
    engine = saying("yes")

    Client(engine).json("POST", path, BODIES[path] | fields)

    assert (engine.params.logprobs, engine.params.prompt_logprobs) == (asked, None)


@pytest.mark.parametrize("n", [1, 2])
def test_an_echo_stands_before_every_choice_of_its_prompt(n: int) -> None:
    prompts = ["one ", "two "]
    engine = ScriptedEngine(scripts=[scored(f"{place}") for place in range(2 * n)])

    body = Client(engine).json("POST", TEXT, {"prompt": prompts, "n": n, "echo": True})

    assert [choice["text"] for choice in body["choices"]] == [
        f"{prompts[place // n]}{place}" for place in range(2 * n)
    ]


def test_a_stop_string_in_an_echo_stops_nothing() -> None:
    body = {"prompt": "no END here", "echo": True, "stop": "END"}

    answer = Client(saying("yes END")).json("POST", TEXT, body)

    assert answer["choices"][0]["text"] == "no END hereyes "


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_with_logprobs_has_those_of_the_prompt(stream: bool) -> None:
    prompt_ids = TOKENIZER.encode("bé!")
    engine = ScriptedEngine(echoing(prompt_ids, scored("ok")))
    body = {"prompt": "bé!", "echo": True, "logprobs": 1}

    if stream:
        *chunks, _ = Client(engine).events(TEXT, body)
        (choice,) = put_together(TEXT, chunks)
    else:
        (choice,) = whole_of(TEXT, Client(engine).json("POST", TEXT, body))

    assert engine.params.prompt_logprobs == 1
    assert choice["text"] == "bé!ok"
    tokens, logprobs, top, offsets = zip(*choice["logprobs"], strict=True)
    count = len(prompt_ids)
    assert logprobs[:count] == (None, *[-2.0] * (count - 1))
    assert top[0] is None
    answer = [len("bé!") + place for place in range(len(tokens) - count)]
    assert list(offsets[count:]) == answer
    assert offsets[:count] == tuple(sorted(offsets[:count]))


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_choice_alone_scores_the_prompt_for_all(stream: bool) -> None:
    prompt_ids = TOKENIZER.encode("bé!")
    scripts = [echoing(prompt_ids, scored("one")), scored("two"), scored("three")]
    engine = ScriptedEngine(scripts=scripts)
    body = {"prompt": "bé!", "echo": True, "logprobs": 1, "n": 3}

    if stream:
        *chunks, _ = Client(engine).events(TEXT, body)
        choices = put_together(TEXT, chunks)
    else:
        choices = whole_of(TEXT, Client(engine).json("POST", TEXT, body))

    assert [prompt.params.prompt_logprobs for prompt in engine.prompts] == [1, None, None]
    assert [choice["text"] for choice in choices] == ["bé!one", "bé!two", "bé!three"]
    count = len(prompt_ids)
    first, *others = (choice["logprobs"][:count] for choice in choices)
    assert [logprob for _, logprob, _, _ in first] == [None, *[-2.0] * (count - 1)]
    assert others == [first, first]


def test_a_choice_that_is_ahead_of_the_one_that_scores_its_prompt_waits_for_it() -> None:
    prompt_ids = TOKENIZER.encode("Hello")
    slow = echoing(prompt_ids, scored("slow"))
    engine = OutOfOrder(scripts=[slow, scored("fast")])
    body = {"prompt": "Hello", "echo": True, "logprobs": 1, "n": 2}

    *chunks, _ = Client(engine).events(TEXT, body)

    indices = [chunk["choices"][0]["index"] for chunk in chunks]
    assert indices == [0, *[1] * (len(scored("fast"))), *[0] * (len(slow) - 1)]
    assert put_together(TEXT, chunks) == whole_of(
        TEXT, Client(OutOfOrder(scripts=[slow, scored("fast")])).json("POST", TEXT, body)
    )


def test_a_choice_whose_prompt_was_never_scored_is_given_without() -> None:
    cut = [Step(None, FinishReason.DEADLINE)]
    engine = OutOfOrder(scripts=[cut, scored("fast")])

    *chunks, _ = Client(engine).events(
        TEXT, {"prompt": "Hello", "echo": True, "logprobs": 1, "n": 2}
    )

    late, fast = put_together(TEXT, chunks)
    assert (late["text"], late["finish_reason"]) == ("Hello", "length")
    assert (fast["text"], len(fast["logprobs"])) == ("Hellofast", len(scored("fast")) - 1)


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"logprobs": 20}, True),
        ({"logprobs": 20, "n": 1}, False),
        ({"logprobs": 19}, False),
        ({"logprobs": 20, "echo": False}, False),
        ({}, False),
    ],
)
def test_an_echo_of_more_logprobs_than_a_server_can_spell_is_refused(
    fields: dict[str, Any], refused: bool
) -> None:
    ids = [1] * 1_250
    engine = ScriptedEngine(steps([]), context_length=2_000)
    body = {"prompt": ids, "echo": True, "n": 2, "stream": True} | fields

    answer = Client(engine).send("POST", TEXT, body)

    assert answer.status == (400 if refused else 200)
    if refused:
        assert isinstance(answer, Response)
        assert b'"param":"logprobs"' in answer.body


def test_an_echo_alone_scores_a_prompt() -> None:
    scored_prompt = echoing(TOKENIZER.encode("Hello"), [Step(None, FinishReason.LENGTH)])
    engine = ScriptedEngine(scored_prompt)

    body = Client(engine).json(
        "POST", TEXT, {"prompt": "Hello", "echo": True, "logprobs": 0, "max_tokens": 0}
    )

    (choice,) = body["choices"]
    assert engine.params.max_tokens == 0
    assert (choice["text"], choice["finish_reason"]) == ("Hello", "length")
    assert len(choice["logprobs"]["tokens"]) == len(engine.prompt_ids)
    assert body["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("Hello", ["Hello"]),
        (["Hello"], ["Hello"]),
        (["one", "two"], ["one", "two"]),
        (TOKENIZER.encode("ids"), ["ids"]),
        ([TOKENIZER.encode("one"), TOKENIZER.encode("two")], ["one", "two"]),
    ],
)
def test_a_prompt_comes_in_four_forms(prompt: Any, read: list[str]) -> None:
    engine = saying("yes")

    body = Client(engine).json("POST", TEXT, {"prompt": prompt, "echo": True})

    assert [TOKENIZER.decode(list(given.ids)) for given in engine.prompts] == read
    assert [choice["text"] for choice in body["choices"]] == [f"{text}yes" for text in read]


def test_biases_and_ids_that_stop_reach_the_engine() -> None:
    engine = saying("yes")

    Client(engine).json(
        "POST", CHAT, USER | {"logit_bias": {"5": -100, "7": 1.5}, "stop_token_ids": [3, 4]}
    )

    assert engine.params.logit_bias == {5: -100.0, 7: 1.5}
    assert engine.params.stop_token_ids == {3, 4}


@pytest.mark.parametrize("path", [*BODIES, "/generate"])
def test_a_whole_answer_says_what_took_how_long(path: str) -> None:
    answer = Client(saying("yes")).send("POST", path, BODIES.get(path, {"prompt": "Hello"}))

    assert isinstance(answer, Response)
    assert answer.headers["server-timing"] == "queue;dur=1.0, prefill;dur=2.0, decode;dur=3.0"


@both
def test_a_stream_says_what_is_known_when_its_head_leaves(path: str) -> None:
    answer = Client(saying("yes")).send("POST", path, BODIES[path] | {"stream": True})

    assert isinstance(answer, StreamResponse)
    assert answer.headers["server-timing"] == "queue;dur=1.0, prefill;dur=2.0"
