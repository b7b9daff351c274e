"""A copy of a model whose template has it think before it answers, as Qwen 3's does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from handlers.artifact.dialect import Dialect, Thinking
from handlers.artifact.manifest import CHAT_TEMPLATE, PREFIX, Artifact, FileInfo
from tests.support.baking import write_manifest

TEMPLATE = """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.reasoning_content and loop.index0 > ns.last %}
        {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
    {%- endif %}
    {{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n<think>\\n' }}
    {%- if enable_thinking is false %}{{- '\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""

DIALECT = Dialect(
    thinking=Thinking(
        begin="<think>\n",
        end="\n</think>\n\n",
        on={"enable_thinking": True},
        off={"enable_thinking": False},
        member="reasoning_content",
    )
)


def thinking_copy(artifact: Path, directory: Path) -> Path:
    """Links the files of `artifact` into a new `directory`, with a template of thoughts."""
    directory.mkdir()
    manifest = Artifact.open(artifact).manifest
    linked = {
        name: info for name, info in manifest.files.items() if name not in (PREFIX, CHAT_TEMPLATE)
    }
    for name in linked:
        (directory / name).symlink_to((artifact / name).resolve())
    content = TEMPLATE.encode()
    (directory / CHAT_TEMPLATE).write_bytes(content)
    template = FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    files = linked | {CHAT_TEMPLATE: template}
    dialect = msgspec.Raw(msgspec.json.encode(DIALECT))
    write_manifest(
        directory, msgspec.structs.replace(manifest, files=files, prefix=None, dialect=dialect)
    )
    return directory
