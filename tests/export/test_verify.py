"""Each gate passes what is right, and fails what is not, with its figure and an example."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from handlers.artifact.manifest import GRAPH, Artifact
from handlers.engine.engine import Engine
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.decoder.export import DecoderStrategy
from model_export.decoder.reference import chats_of, prompts_of
from model_export.fetch.load import LoadedModel
from model_export.recipe import DecoderTolerance
from model_export.reporting import ExportError
from model_export.verify.conversion import TIE, check_greedy, cut_engine
from model_export.verify.corpus import corpus, evaluation_text
from model_export.verify.exchange import (
    REQUEST,
    CutReference,
    DecoderGates,
    DecoderReference,
    VerifyRequest,
    write,
)
from model_export.verify.launch import verify
from model_export.verify.tokens import check_tokens
from tests.support.reports import ignore
from tests.support.tiny_models import CONTEXT_LENGTH
from tests.support.tiny_strategies import load_tiny, tiny_strategy, write_exact
from tests.support.tiny_tokenizers import CHATML

ROOT = Path(__file__).parent.parent.parent
WIDE = DecoderTolerance(max_kl=math.inf, min_top1_agreement=0.0, max_perplexity_ratio=math.inf)


# As Gemma 2's template does.
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def strategy(loaded: LoadedModel) -> DecoderStrategy:
    return tiny_strategy(loaded)


@pytest.fixture(scope="module")
def gates(strategy: DecoderStrategy, tmp_path_factory: pytest.TempPathFactory) -> DecoderGates:
    return strategy.reference(tmp_path_factory.mktemp("reference"), ignore)


@pytest.fixture(scope="module")
def reference(gates: DecoderGates) -> DecoderReference:
    return gates.reference


@pytest.fixture(scope="module")
def cut(reference: DecoderReference) -> CutReference:
    return reference.cut


@pytest.fixture(scope="module")
def exact(
    strategy: DecoderStrategy, gates: DecoderGates, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_exact(strategy, gates, tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.open(tiny_artifact)


@pytest.fixture(scope="module")
def tokenizer(artifact: Artifact) -> Tokenizer:
    return Tokenizer.load(artifact.tokenizer)


@pytest.fixture
def engine(exact: Path, cut: CutReference) -> Engine:
    return cut_engine(exact / GRAPH, cut, threads=1)


def test_the_corpus_has_what_tokenizers_get_wrong() -> None:
    texts = "".join(corpus().texts)
    for ranges in ((0x4E00, 0x9FFF), (0x1F600, 0x1F64F), (0x0, 0x8), (0x600, 0x6FF), (0x30, 0x39)):
        assert any(ranges[0] <= ord(character) <= ranges[1] for character in texts)
    assert max(len(chat.messages) for chat in corpus().chats) >= 4
    assert len(evaluation_text().split()) > 2000


def test_gate_1_passes_the_same_tokenizer_and_template(
    reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> None:
    template = ChatTemplate(artifact.chat_template, artifact.manifest.special_tokens)
    figures = check_tokens(reference, tokenizer, template)
    assert figures == {
        "texts": len(reference.texts),
        "chats": len(corpus().chats),
        "refused_chats": 0,
    }


def test_gate_1_passes_a_template_that_refuses_a_chat_on_both_sides(
    loaded: LoadedModel, reference: DecoderReference, tokenizer: Tokenizer
) -> None:
    source = NO_SYSTEM + CHATML
    chats, refusals = chats_of(replace(loaded, chat_template=source))
    assert {refusal.reason for refusal in refusals} == {"System role not supported"}
    strict = msgspec.structs.replace(reference, chats=chats, refusals=refusals)
    figures = check_tokens(strict, tokenizer, ChatTemplate(source, {}))
    assert figures["refused_chats"] == len(strict.refusals)
    assert figures["chats"] + figures["refused_chats"] == len(corpus().chats)
    with pytest.raises(ExportError, match="transformers refuses it: System role not supported"):
        check_tokens(strict, tokenizer, ChatTemplate(CHATML, {}))


def test_a_template_that_refuses_every_chat_is_refused(loaded: LoadedModel) -> None:
    source = "{{ raise_exception('Not today') }}"
    with pytest.raises(ExportError, match="refuses every conversation: Not today"):
        chats_of(replace(loaded, chat_template=source))


def test_gate_1_fails_at_the_first_differing_id(
    reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> None:
    wrong = msgspec.structs.replace(reference.texts[3], ids=[*reference.texts[3].ids[:-1], 7])
    changed = msgspec.structs.replace(reference, texts=[wrong])
    position = len(wrong.ids) - 1
    with pytest.raises(ExportError, match=rf"Gate 1 failed: .* at position {position}: \[\d+\]"):
        check_tokens(changed, tokenizer, ChatTemplate(artifact.chat_template, {}))


def test_gate_1_fails_for_a_template_that_renders_one_space_more(
    reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> None:
    source = (artifact.chat_template or "").replace("assistant", "assistant ")
    with pytest.raises(ExportError, match="Gate 1 failed: the runtime renders the chat"):
        check_tokens(reference, tokenizer, ChatTemplate(source, {}))


def test_gate_2_passes_the_graph_of_the_same_model(
    cut: CutReference, engine: Engine, tokenizer: Tokenizer
) -> None:
    figures = check_greedy(cut, engine, tokenizer)
    assert figures["prompts"] == len(cut.answers) > 8
    assert figures["tokens"] > 8 * figures["prompts"]


def test_gate_2_reads_one_prompt_that_fills_the_context(cut: CutReference) -> None:
    longest = max(len(answer.prompt_ids) for answer in cut.answers)
    assert longest == CONTEXT_LENGTH - cut.answer_tokens - 1


def test_a_context_that_no_prompt_fits_into_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ExportError, match="too few to verify anything"):
        prompts_of(loaded, chats_of(loaded)[0], 24)


def test_gate_2_fails_when_ties_leave_too_little_to_compare(
    cut: CutReference, engine: Engine, tokenizer: Tokenizer
) -> None:
    answers = [
        msgspec.structs.replace(answer, margins=[TIE / 2] * len(answer.margins))
        for answer in cut.answers
    ]
    with pytest.raises(ExportError, match=r"leave 0 of \d+ tokens to compare"):
        check_greedy(msgspec.structs.replace(cut, answers=answers), engine, tokenizer)


def test_gate_2_fails_at_the_first_differing_token(
    cut: CutReference, engine: Engine, tokenizer: Tokenizer
) -> None:
    first = cut.answers[0]
    ids = [*first.ids[:2], (first.ids[2] + 1) % 500, *first.ids[3:]]
    answers = [msgspec.structs.replace(first, ids=ids), *cut.answers[1:]]
    with pytest.raises(ExportError, match=r"Gate 2 failed: .* alone, .* part at token 2"):
        check_greedy(msgspec.structs.replace(cut, answers=answers), engine, tokenizer)


def test_gate_2_fails_when_the_graph_ends_where_transformers_goes_on(
    cut: CutReference, engine: Engine, tokenizer: Tokenizer
) -> None:
    first = msgspec.structs.replace(cut.answers[0], ids=cut.answers[0].ids[:4])
    ended = msgspec.structs.replace(first, ended=True, margins=first.margins[:5])
    with pytest.raises(ExportError, match="part at token 4"):
        check_greedy(msgspec.structs.replace(cut, answers=[ended]), engine, tokenizer)


def test_gate_2_compares_a_tied_answer_up_to_the_tie_and_counts_it(
    cut: CutReference, engine: Engine, tokenizer: Tokenizer
) -> None:
    first = cut.answers[0]
    margins = [*first.margins[:2], TIE / 2, *first.margins[3:]]
    tied = msgspec.structs.replace(first, ids=[*first.ids[:2], 1, 1], margins=margins)
    before = check_greedy(cut, engine, tokenizer)
    answers = [tied, *cut.answers[1:]]
    figures = check_greedy(msgspec.structs.replace(cut, answers=answers), engine, tokenizer)
    assert figures["ties"] == before["ties"] + 1
    assert figures["tokens"] == before["tokens"] - len(first.margins) + 2


def request(
    reference: DecoderReference, exact: Path, artefact: Path, tolerance: DecoderTolerance = WIDE
) -> VerifyRequest:
    return VerifyRequest(DecoderGates(reference, tolerance), exact, artefact, threads=1)


def test_gate_4_runs_the_gates_in_a_process_of_its_own_and_reports(
    reference: DecoderReference, exact: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    figures = verify(
        request(reference, exact, tiny_artifact), tmp_path / "exchange", lines.append
    ).figures
    assert set(figures) == {"tokens", "greedy", "drift", "answer"}
    assert figures["greedy"]["kl"] < 1e-7
    assert figures["greedy"]["layers"] == [0, 2]
    assert figures["drift"]["kl"] < 1e-7
    assert figures["answer"]["prompt"] == reference.chats[0].rendered
    assert [line.partition(",")[0] for line in lines] == [
        "verify: gate 1",
        "verify: gate 2",
        "verify: gate 3",
    ]


def test_gate_4_needs_nothing_that_only_the_build_has(
    reference: DecoderReference, exact: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    write(tmp_path / REQUEST, request(reference, exact, tiny_artifact))
    program = "import sys; from model_export.verify.__main__ import main; main()"
    program += "; print(*sys.modules)"
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines()[-1].split())
    assert "onnxruntime" in modules
    assert modules.isdisjoint({"torch", "transformers", "optimum", "onnx", "onnx_ir"})


def test_gate_4_passes_on_the_sentence_of_the_gate_that_failed(
    reference: DecoderReference, exact: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    strict = DecoderTolerance(max_kl=1.0, min_top1_agreement=1.0, max_perplexity_ratio=0.5)
    with pytest.raises(ExportError, match="Gate 3 failed: the quantised graph's perplexity ratio"):
        verify(request(reference, exact, tiny_artifact, strict), tmp_path / "exchange", ignore)


def test_gate_4_says_when_an_artefact_cannot_be_served(
    reference: DecoderReference, exact: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="No model at"):
        verify(request(reference, exact, tmp_path / "absent"), tmp_path / "exchange", ignore)


def test_gate_4_says_when_its_process_was_killed(
    reference: DecoderReference, exact: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    def kill_the_child(line: str) -> None:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        for child in children:
            if b"model_export.verify" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)

    with pytest.raises(ExportError, match="was killed, most likely because memory ran out"):
        verify(request(reference, exact, tiny_artifact), tmp_path / "exchange", kill_the_child)
