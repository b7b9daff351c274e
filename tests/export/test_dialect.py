"""The dialect that an export finds by asking a chat template."""

from __future__ import annotations

import time

import pytest

from handlers.artifact.dialect import (
    HERMES,
    Dialect,
    LiteralArguments,
    TaggedArguments,
    Thinking,
    ToolFormat,
)
from handlers.text.answer_format import answer_format
from handlers.text.chat_template import ChatTemplate, PromptOptions
from model_export.dialect.analysis import Templates, find_dialect
from model_export.dialect.rows import GRANITE_3, HARMONY, LFM2, SMOLLM3
from scripts.dialects import compared
from tests.support import dialect_templates as own
from tests.support import tool_templates
from tests.support.reports import ignore
from tests.support.tool_formats import LLAMA, MISTRAL_SPACED

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def dialect_of(source: str | None, tool_source: str | None = None, *ends: str) -> Dialect:
    return find_dialect(Templates(source, tool_source, SPECIAL_TOKENS, ends), ignore)


def tools_of(source: str) -> ToolFormat:
    tools = dialect_of(source).tools
    assert tools is not None
    return tools


def thinking_of(source: str) -> Thinking:
    thinking = dialect_of(source).thinking
    assert thinking is not None
    return thinking


def around(tools: ToolFormat) -> str:
    """Two calls, with . for the slots."""
    call = "".join("." if place % 2 else text for place, text in enumerate(tools.call))
    return f"{tools.begin}{call}{tools.separator}{call}{tools.end}"


def test_the_forms_of_calls_in_json_are_found() -> None:
    assert dialect_of(tool_templates.HERMES).tools == HERMES
    assert dialect_of(tool_templates.LLAMA).tools == LLAMA
    mistral = tools_of(tool_templates.MISTRAL)
    assert (mistral.begin, mistral.end) == (MISTRAL_SPACED.begin, MISTRAL_SPACED.end)
    assert mistral.call[-3:] == (', "id": "', "id", '"}')
    assert mistral.id_length == 9


@pytest.mark.parametrize("source", [None, "{{ tools }}", "{{ messages[0].content }}"])
def test_a_template_without_calls_and_thoughts_has_no_dialect(source: str | None) -> None:
    assert dialect_of(source) == Dialect()


def test_arguments_between_tags_are_found() -> None:
    tagged, pairs, typed, xml = map(tools_of, (own.TAGGED, own.PAIRS, own.TYPED, own.XML))

    call = "<tool_call>\n<function=.>\n.</function>\n</tool_call>"
    assert around(tagged) == f"{call}\n{call}"
    assert tagged.arguments == TaggedArguments(
        "<parameter=", ">\n", "\n</parameter>\n", text_values=True
    )
    assert around(pairs) == "<tool_call>..</tool_call>" * 2
    assert pairs.arguments == TaggedArguments("<arg_key>", "</arg_key><arg_value>", "</arg_value>")
    assert typed.trigger == "<|DSML|calls>"
    assert isinstance(typed.arguments, TaggedArguments)
    assert typed.arguments.other_middle == '" string="false">'
    assert xml.arguments == TaggedArguments(
        '<param name="', '">', "</param>", text_values=True, cdata=True
    )


def test_arguments_as_literals_are_found() -> None:
    python, notation = tools_of(own.PYTHON), tools_of(own.NOTATION)

    assert around(python) == "<|tool_call_start|>[.(.), .(.)]<|tool_call_end|>"
    assert python.arguments == LFM2.tools.arguments
    assert not python.in_history  # its quotes are not escaped
    assert around(notation) == "<|tool_call>call:.{.}<tool_call|>" * 2
    assert notation.arguments == LiteralArguments(":", ",", '<|"|>', ":", quoted_keys=False)
    assert notation.in_history


def test_ids_numbers_and_names_are_found_wherever_they_stand() -> None:
    ids, numbers, keys = map(tools_of, (own.IDS, own.NUMBERS, own.KEYS))

    assert ids.call == ("[TOOL_CALLS]", "name", "[CALL_ID]", "id", "[ARGS]", "arguments", "")
    assert (ids.id_length, ids.separator) == (9, "")
    assert numbers.call[1:4] == ("name", ":", "index")
    assert numbers.first_index == 0
    assert not numbers.in_history  # the sandbox of the runtime lets no template change a list
    assert keys.call == ('{"', "name", '": ', "arguments", "}")
    assert keys.end == "]<|tools_suffix|>"


def test_a_template_of_one_call_that_wants_text_is_asked_for_it() -> None:
    found = dialect_of(own.MARKED_TEXT)

    assert found.tools is not None
    assert found.tools.text_arguments
    assert found.tools.separator is None
    assert found.tools.call == ("<|call|>", "name", "\n", "arguments", "<|done|>")
    assert found.text == ("<|content|>", "")
    assert found.thinking == Thinking("<|think|>", "<|end|><|start|>assistant", member="thinking")


@pytest.mark.parametrize("name", own.UNKNOWN)
def test_calls_that_cannot_be_described_are_left_out_with_a_line(name: str) -> None:
    lines: list[str] = []

    found = find_dialect(Templates(own.UNKNOWN[name]), lines.append)

    assert found.tools is None
    assert lines == ["dialect: tool calls in a form that is not known; tools are described as text"]


def test_a_template_that_nobody_foresaw_fails_no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("model_export.dialect.analysis.find_thinking", fail)
    lines: list[str] = []

    assert find_dialect(Templates("{{ tools }}"), lines.append) == Dialect()
    assert lines == ["dialect: the template cannot be asked, so it has none (unforeseen)"]


def test_a_template_that_loops_without_end_fails_no_export(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model_export.dialect.analysis.MAX_SECONDS", 0.2)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    lines: list[str] = []

    assert find_dialect(Templates(loops), lines.append) == Dialect()
    assert len(lines) == 1
    assert "it takes longer than" in lines[0]


def test_the_tokens_that_end_an_answer_are_no_part_of_calls() -> None:
    source = own.KEYS.replace("']<|tools_suffix|>'", "']<|eot|>'")

    assert tools_of(source).end == "]<|eot|>"
    found = dialect_of(source, None, "<|eot|>").tools
    assert found is not None
    assert found.end == "]"


@pytest.mark.parametrize(
    ("words", "row"),
    [
        ("List of tools: {{ tools }}<|im_start|>", LFM2),
        ("{% if xml_tools %}{{ xml_tools }}<tool_call>{% endif %}", SMOLLM3),
        (
            "{{ tools }}respond only with <|tool_call|> followed by a JSON list of tools used",
            GRANITE_3,
        ),
        ("{{ tools }}<|channel|>commentary functions. <|call|>", HARMONY),
    ],
)
def test_families_that_show_nothing_are_known(words: str, row: object) -> None:
    plain = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
    assert dialect_of(words + plain).tools == row.tools  # type: ignore[attr-defined]


def test_a_template_for_tools_is_asked_for_calls_and_the_other_for_thoughts() -> None:
    found = dialect_of(own.CUT, tool_templates.HERMES)

    assert found.tools == HERMES
    assert found.thinking == Thinking("<think>\n", "\n</think>\n\n")


def test_the_marks_of_thoughts_and_their_switch_are_found() -> None:
    on, off = {"enable_thinking": True}, {"enable_thinking": False}

    assert thinking_of(own.TAGGED) == Thinking(
        "<think>\n", "\n</think>\n\n", on, off, member="reasoning_content"
    )
    assert thinking_of(own.PAIRS) == Thinking(
        "<think>", "</think>", on, off, member="reasoning_content"
    )
    assert thinking_of(own.NOTATION) == Thinking(
        "<|channel>thought\n", "\n<channel|>", on, off, member="reasoning"
    )


def test_thoughts_that_only_a_setting_shows_are_found() -> None:
    assert thinking_of(own.TYPED) == Thinking(
        "<think>",
        "</think>",
        on={"thinking": True},
        off={"thinking": False},
        member="reasoning_content",
    )


def test_thoughts_in_other_members_and_in_none_are_found() -> None:
    assert thinking_of(own.PYTHON) == Thinking("<think>", "</think>", member="thinking")
    assert thinking_of(own.IDS) == Thinking("[THINK]", "[/THINK]", member="content")
    assert thinking_of(own.CUT) == Thinking("<think>\n", "\n</think>\n\n")


def test_marks_of_text_are_told_from_those_of_thoughts() -> None:
    found = dialect_of(own.FRAMED)

    assert found.thinking is not None
    assert found.thinking.begin == "<|open|>think<|sep|>"
    assert found.thinking.end == "<|close|>think<|sep|>"
    assert found.text == ("<|open|>response<|sep|>", "<|close|>response<|sep|>")


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("a<|end|><|start|>assistant", "open"),  # any turn ends so
        ("a<|end|><|start|>assistant<|think|>\n", "begun"),
        ("a<|end|><|start|>assistant<|think|><|end|><|start|>assistant", "over"),
    ],
)
def test_an_end_that_every_turn_has_ends_thoughts_only_after_their_beginning(
    prompt: str, left: str
) -> None:
    thinking = Thinking("<|think|>", "<|end|><|start|>assistant")
    form = answer_format(Dialect(thinking=thinking), prompt)

    assert thinking.left_by(prompt) == left
    assert (form.thinking is None, form.thinks) == (left == "over", left == "begun")


def test_a_switch_of_words_is_found() -> None:
    assert thinking_of(own.EFFORT) == Thinking(
        "<think>",
        "</think>",
        on={"reasoning_effort": "high"},
        off={"reasoning_effort": "none"},
        effort="reasoning_effort",
        member="reasoning_content",
    )


@pytest.mark.parametrize("source", [own.TAGGED, own.PAIRS, own.EFFORT, own.NOTATION])
def test_the_settings_leave_the_prompt_as_they_say(source: str) -> None:
    thinking = thinking_of(source)
    template = ChatTemplate(source, SPECIAL_TOKENS)
    prompts = [
        template.prompt(
            [{"role": "user", "content": "Hi"}],
            options=PromptOptions(values=values),
        )
        for values in (thinking.on, thinking.off)
    ]

    assert thinking.left_by(prompts[0]) in ("begun", "open")
    assert thinking.left_by(prompts[1]) == "over"


@pytest.mark.parametrize("name", own.KNOWN)
def test_a_conversation_is_rendered_as_in_transformers(name: str) -> None:
    source = own.KNOWN[name]

    assert all(compared(source, dialect_of(source)))


def test_it_takes_well_under_a_second() -> None:
    began = time.process_time()
    for source in own.KNOWN.values():
        dialect_of(source)
    assert time.process_time() - began < len(own.KNOWN)
