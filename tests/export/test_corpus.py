"""The calibration text has every kind early on, and nothing that the gates judge by."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from handlers.artifact.manifest import TOKENIZER
from handlers.text.tokenizer import Tokenizer
from model_export.verify.corpus import Conversation, calibration, corpus, evaluation_text

SENTENCE = 20
"""Characters; what is shorter, such as "Hi all," or "else:", is nobody's."""
SEQUENCE = 8
"""Words in a row."""
SCRIPTS = {"LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "CJK", "HIRAGANA", "KATAKANA"}


def test_the_calibration_shares_no_sentence_with_what_judges() -> None:
    judging = {sentence for text in judging_texts() for sentence in sentences(text)}
    shared = judging & {sentence for text in calibration_texts() for sentence in sentences(text)}
    assert len(judging) > 200
    assert not shared


def test_the_calibration_shares_no_eight_words_in_a_row_with_what_judges() -> None:
    judging = {sequence for text in judging_texts() for sequence in sequences(text)}
    shared = judging & {sequence for text in calibration_texts() for sequence in sequences(text)}
    assert len(judging) > 2000
    assert not shared


def test_the_calibration_has_every_kind() -> None:
    texts = "\n".join(calibration().texts)
    assert scripts(texts) >= SCRIPTS
    assert {"und", "une", "las", "che", "dos", "się", "на"} <= set(re.findall(r"\w+", texts))
    for code in ("def ", "const ", "#include", "SELECT", "#!/", '"from": {', "<html", "@@", "|:--"):
        assert code in texts


def test_the_calibrations_beginning_is_a_fair_sample(demo_artifact: Path) -> None:
    tokenizer = Tokenizer.load(demo_artifact / TOKENIZER)
    ids = tokenizer.encode("\n".join(calibration().texts))
    beginning = tokenizer.decode(ids[:2048])
    assert len(scripts(beginning) & SCRIPTS) >= 5
    assert all(kind in beginning for kind in ("def ", "SELECT", "|:--", "Solution:", "WARNING:"))
    chats = sum(len(tokenizer.encode(text)) for text in messages(calibration().chats))
    assert 5500 < len(ids) + chats < 7000


def test_any_template_takes_the_calibrations_chats() -> None:
    systems = 0
    for chat in calibration().chats:
        roles = [message["role"] for message in chat.messages]
        systems += roles[0] == "system"
        turns = roles[roles[0] == "system" :]
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert 2 <= len(turns) <= 6
    assert 10 <= len(calibration().chats) <= 14
    assert 2 <= systems <= 4


def calibration_texts() -> list[str]:
    return [*calibration().texts, *messages(calibration().chats)]


def judging_texts() -> list[str]:
    prompts = (*corpus().texts, *corpus().completions, *messages(corpus().chats))
    return [evaluation_text(), *prompts]


def messages(chats: list[Conversation]) -> Iterator[str]:
    return (message["content"] for chat in chats for message in chat.messages)


def sentences(text: str) -> Iterator[str]:
    """Yields lines, and the sentences of each, without case and white space around them."""
    for line in text.lower().splitlines():
        for sentence in (line, *re.split(r"(?<=[.!?;:])\s+|(?<=\u3002)", line)):
            if len(sentence.strip()) > SENTENCE:
                yield sentence.strip()


def sequences(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[start:] for start in range(SEQUENCE)), strict=False)


def scripts(text: str) -> set[str]:
    return {unicodedata.name(character, "").split(" ")[0] for character in text}
