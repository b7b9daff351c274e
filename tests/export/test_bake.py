"""A recipe's system prompt in the artefact, or one sentence that says why it cannot be there."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.artifact.manifest import CHAT_TEMPLATE, PREFIX, Artifact
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.pipeline import export
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from tests.engine.fake_session import greedy, read
from tests.export.test_pipeline import assert_served, write_recipe
from tests.support.baking import bake_copy
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import CONTEXT_LENGTH
from tests.support.tiny_tokenizers import CHATML

SYSTEM = "You are a lighthouse keeper."
MESSAGES = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "A ship?"}]


def prompt_of(artifact: Artifact) -> list[int]:
    prompt = ChatTemplate.of(artifact).render(MESSAGES)
    return Tokenizer.load(artifact.tokenizer).encode(prompt)


@pytest.mark.parametrize("chat_template", [CHATML, None])
def test_a_system_prompt_in_the_recipe_is_found_computed_by_the_first_chat(
    tmp_path: Path, chat_template: str | None
) -> None:
    save_tiny_folder(tmp_path / "source", chat_template=chat_template)
    recipe = write_recipe(tmp_path, 'path = "source"')
    with recipe.open("a", encoding="utf-8") as file:
        file.write(f'\n[prefix]\nsystem_prompt = "{SYSTEM}"\n')
    lines: list[str] = []
    export(load_decoder_recipe(str(recipe)), tmp_path / "out", lines.append)
    manifest = assert_served(tmp_path / "out")
    assert manifest.prefix is not None
    assert PREFIX in manifest.files
    assert f"prefix: {manifest.prefix.tokens} tokens, 0.0 MB" in lines
    artifact = Artifact.open(tmp_path / "out")
    generation = Engine.load(artifact, Settings.from_environ({})).submit(
        prompt_of(artifact), greedy(1)
    )
    read(generation)
    assert generation.stats().cached_tokens == manifest.prefix.tokens > 10


def with_template(artifact: Path, directory: Path, template: str) -> Path:
    """A copy without the manifest's word on the template's size."""
    copy = bake_copy(artifact, directory, SYSTEM)
    (copy / CHAT_TEMPLATE).unlink()
    text = template.ljust((artifact / CHAT_TEMPLATE).stat().st_size)
    (copy / CHAT_TEMPLATE).write_text(text, encoding="utf-8")
    return copy


def refusal(artifact: Path, directory: Path, system_prompt: str) -> str:
    with pytest.raises(ExportError) as raised:
        bake_copy(artifact, directory, system_prompt)
    return str(raised.value)


def test_a_prompt_that_fills_the_context_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    said = refusal(tiny_artifact, tmp_path / "long", "lighthouse " * CONTEXT_LENGTH)
    assert "fewer than [export] context_length, which is 256" in said


def test_a_template_that_takes_no_system_message_is_named(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    strict = with_template(
        tiny_artifact, tmp_path / "strict", "{{ raise_exception('System role not supported') }}"
    )
    said = refusal(strict, tmp_path / "baked", SYSTEM)
    assert "[prefix] system_prompt: The model's chat template refuses these messages: " in said
    assert "System role not supported" in said


def test_a_template_whose_chats_begin_differently_has_nothing_to_bake(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    bare = with_template(tiny_artifact, tmp_path / "bare", "{{ messages[1].content }}")
    assert "with the same 0 tokens" in refusal(bare, tmp_path / "baked", SYSTEM)
