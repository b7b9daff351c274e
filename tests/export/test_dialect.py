"""The dialect that an export finds by asking a chat template."""

from __future__ import annotations

import time

import pytest

from handlers.artifact.dialect import HERMES, Dialect, Thinking
from model_export.dialect.analysis import Templates, find_dialect
from tests.support import tool_templates
from tests.support.reports import ignore
from tests.support.tool_formats import LLAMA, MISTRAL_SPACED

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def dialect_of(source: str | None, tool_source: str | None = None) -> Dialect:
    return find_dialect(Templates(source, tool_source, SPECIAL_TOKENS), ignore)


def test_the_forms_of_calls_in_json_are_found() -> None:
    assert dialect_of(tool_templates.HERMES).tools == HERMES
    assert dialect_of(tool_templates.LLAMA).tools == LLAMA
    mistral = dialect_of(tool_templates.MISTRAL).tools
    assert mistral is not None
    assert (mistral.begin, mistral.end) == (MISTRAL_SPACED.begin, MISTRAL_SPACED.end)
    assert mistral.call[-3:] == (', "id": "', "id", '"}')
    assert mistral.id_length == 9


@pytest.mark.parametrize("source", [None, "{{ tools }}", "{{ messages[0].content }}"])
def test_a_template_without_calls_and_thoughts_has_no_dialect(source: str | None) -> None:
    assert dialect_of(source) == Dialect()


# As Qwen 3 writes an answer and begins one.
THINKING = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def test_the_marks_of_thoughts_and_their_switch_are_found() -> None:
    assert dialect_of(THINKING).thinking == Thinking(
        begin="<think>\n",
        end="\n</think>\n\n",
        on={"enable_thinking": True},
        off={"enable_thinking": False},
        member="reasoning_content",
    )


def test_it_takes_well_under_a_second() -> None:
    began = time.process_time()
    for source in (THINKING, *tool_templates.TEMPLATES.values()):
        dialect_of(source)
    assert time.process_time() - began < 2
