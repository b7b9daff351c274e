"""Finds the variables of a template that turn thinking on and off, or say how much of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from handlers.artifact.dialect import Thinking, ThinkingState
from model_export.dialect.probe import Probe

ABOUT_THINKING = re.compile(r"think|thought|reason", re.IGNORECASE)
EFFORT = re.compile(r"effort|strength")
FIRST = ("enable_thinking", "thinking", "reasoning_effort")
EFFORTS = ("low", "medium", "high")
OFF_WORDS = ("none", "no_think", "off", "disabled", "minimal", "low")
ON_WORDS = ("high", "enabled", "on", "medium")

BUDGET = "budget"
"""In the name of a variable that takes a number of tokens; 0 turns thinking off."""

RANK: dict[ThinkingState, int] = {"over": 0, "open": 1, "begun": 2}


class Switches(msgspec.Struct, frozen=True):
    """The settings of a template's variables that Thinking has."""

    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    effort: str | None = None


def settings_to_try(probe: Probe) -> list[dict[str, Any]]:
    """Returns settings that may turn thinking on or off, the template's own first."""
    settings: list[dict[str, Any]] = [{}]
    for name in _candidates(probe):
        settings += [{name: True}, {name: False}] if BUDGET not in name else [{name: 0}]
        settings += [{name: word} for word in dict.fromkeys(probe.variables[name])]
    return settings


def find_switches(probe: Probe, thinking: Thinking) -> Switches:
    """Returns what turns thinking on and off."""
    asked = _Asked(probe, thinking)
    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    effort = None
    for name in _candidates(probe):
        if not on and not off:
            on, off = asked.boolean(name) or asked.word(name) or ({}, {})
        if effort is None and EFFORT.search(name) and asked.takes_efforts(name):
            effort = name
    return Switches(on, off, effort)


def _candidates(probe: Probe) -> list[str]:
    """Returns the variables that are about thinking, the usual ones first."""
    names = [name for name in probe.variables if ABOUT_THINKING.search(name)]
    names = [name for name in names if not re.search(r"content|text|parts|history|past", name)]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


class _Asked:
    """The states of a template's prompt under its variables."""

    def __init__(self, probe: Probe, thinking: Thinking) -> None:
        self._probe, self._thinking = probe, thinking
        self._usual = self._ask({})

    def boolean(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Returns the settings that turn thinking on and off by true and false."""
        if BUDGET in name:
            return ({}, {name: 0}) if self._ask({name: 0}) != self._usual else None
        true, false = self._ask({name: True}), self._ask({name: False})
        if true is None or false is None or true == false:
            return None
        more = RANK[true[0]] - RANK[false[0]]
        if more == 0 and name not in FIRST:
            return None
        return ({name: more >= 0}, {name: more < 0})

    def word(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Returns the settings that turn thinking on and off by words."""
        words = dict.fromkeys((*self._probe.variables[name], *OFF_WORDS, *ON_WORDS))
        answers = {word: found for word in words if (found := self._ask({name: word}))}
        by_rank: dict[int, list[str]] = {}
        for word, (state, _) in answers.items():
            by_rank.setdefault(RANK[state], []).append(word)
        if len(by_rank) < 2:
            return None
        on = _preferred(by_rank[max(by_rank)], ON_WORDS)
        off = _preferred(by_rank[min(by_rank)], OFF_WORDS)
        return {name: on}, {name: off}

    def takes_efforts(self, name: str) -> bool:
        """Returns whether a variable takes each of the efforts, and shows them."""
        prompts = [self._ask({name: word}) for word in EFFORTS]
        return None not in prompts and len({*prompts}) > 1

    def _ask(self, setting: Mapping[str, Any]) -> tuple[ThinkingState, str] | None:
        prompt = self._probe.prompt(setting)
        if prompt is None:
            return None
        return self._thinking.left_by(prompt), prompt


def _preferred(words: list[str], order: tuple[str, ...]) -> str:
    return next((word for word in order if word in words), words[0])
