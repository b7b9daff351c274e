"""The request fields that say whether a model thinks, for how long, and where its thoughts go.

They are OpenAI's, and those of other servers and clients, which all say one of a few things:
https://openrouter.ai/docs/use-cases/reasoning-tokens
https://docs.vllm.ai/en/latest/features/reasoning_outputs/
https://github.com/ggml-org/llama.cpp/tree/master/tools/server
https://help.aliyun.com/en/model-studio/deep-thinking
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from handlers.api.sampling import SamplingFields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.dialect import Thinking

T = TypeVar("T")

TemplateKwargs = Annotated[dict[str, Any], Meta(max_length=64)]

NO_LIMIT = -1
"""The budget of vLLM and llama-server that is none."""

Budget = Annotated[int, Meta(ge=NO_LIMIT, le=2**31 - 1)]

EFFORTS = {
    "none": None,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}
"""The words for an effort, each with the one that chat templates know, None for no thoughts.

Other words, such as Groq's "default", leave the model as it is.
"""

SWITCHES = {"enabled": True, "disabled": False}
"""The types of the field `thinking` that are a switch; "adaptive" leaves it to the model."""

Display = Literal["apart", "hidden", "inline"]
"""Thoughts come apart from the text, not at all, or within the text as the model writes them."""


class ReasoningField(msgspec.Struct, frozen=True):
    """OpenAI's and OpenRouter's field `reasoning`."""

    effort: str | None = None
    max_tokens: Budget | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    summary: str | None = None
    """OpenAI's. Thoughts are given as they are, never summed up."""


class ThinkingField(msgspec.Struct, frozen=True):
    """Anthropic's and DeepSeek's field `thinking`."""

    type: str | None = None
    budget_tokens: Budget | None = None


class ThinkingOptions(msgspec.Struct, frozen=True):
    """The wishes of one request about the model's thoughts, whatever its fields are called."""

    enabled: bool | None = None
    """None for what the model does by itself."""
    effort: str | None = None
    """A word that chat templates know."""
    budget: int | None = None
    """The most tokens that the thoughts may have, None for no limit."""
    display: Display = "apart"

    def variables(self, thinking: Thinking | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the variables of a template that make the model think so, none without a switch.

        `given`: the variables that the request itself names, which take precedence.
        """
        if thinking is None:
            return {}
        word, switch = given.get("reasoning_effort"), given.get("enable_thinking")
        effort = EFFORTS.get(word) if isinstance(word, str) else self.effort
        enabled = _first(switch if isinstance(switch, bool) else None, _switch(word), self.enabled)
        if enabled is False:
            return dict(thinking.off)
        variables = dict(thinking.on) if enabled else {}
        if thinking.effort is not None and effort is not None:
            variables[thinking.effort] = effort
        return variables


class SwitchFields(Protocol):
    """The fields that change the prompt. Structs have one base, so two structs have them."""

    @property
    def chat_template_kwargs(self) -> TemplateKwargs | None: ...

    @property
    def enable_thinking(self) -> bool | None: ...

    @property
    def reasoning_effort(self) -> str | None: ...

    @property
    def reasoning(self) -> ReasoningField | None: ...

    @property
    def thinking(self) -> ThinkingField | None: ...


class ThinkingFields(SamplingFields, frozen=True, kw_only=True):
    """The fields of every generating endpoint that writes a conversation."""

    chat_template_kwargs: TemplateKwargs | None = None
    enable_thinking: bool | None = None
    """The same as in chat_template_kwargs, which take precedence."""
    reasoning_effort: str | None = None
    """OpenAI's."""
    reasoning: ReasoningField | None = None
    thinking: ThinkingField | None = None
    think: bool | str | None = None
    """Ollama's: whether to think, or an effort."""
    thinking_budget: Budget | None = None
    """Qwen's."""
    thinking_token_budget: Budget | None = None
    """vLLM's."""
    thinking_budget_tokens: Budget | None = None
    """llama-server's."""
    reasoning_budget_tokens: Budget | None = None
    """llama-server's older name."""
    include_reasoning: bool | None = None
    """vLLM's."""
    separate_reasoning: bool | None = None
    """SGLang's."""
    reasoning_format: Literal["none", "auto", "deepseek"] | None = None
    """llama-server's."""

    @property
    def thinking_options(self) -> ThinkingOptions:
        """The wishes that the fields have about thoughts."""
        reasoning, think = self.reasoning or ReasoningField(), self.think
        budget = _first(
            self.thinking_budget,
            self.thinking_token_budget,
            self.thinking_budget_tokens,
            self.reasoning_budget_tokens,
        )
        hidden = self.include_reasoning is False or reasoning.exclude
        inline = self.reasoning_format == "none" or self.separate_reasoning is False
        return thinking_options(
            self,
            think=think if isinstance(think, bool) else None,
            effort=think if isinstance(think, str) else None,
            budget=budget,
            display="hidden" if hidden else "inline" if inline else "apart",
        )


def thinking_options(
    body: SwitchFields,
    *,
    think: bool | None = None,
    effort: str | None = None,
    budget: int | None = None,
    display: Display = "apart",
) -> ThinkingOptions:
    """Returns what a body says about thoughts; the other arguments are fields that not all have.

    A switch takes precedence over an effort, and that over a budget, of which 0 is no thoughts.
    """
    reasoning = body.reasoning or ReasoningField()
    thinking = body.thinking or ThinkingField()
    word = _first(body.reasoning_effort, reasoning.effort, effort)
    given = _first(budget, reasoning.max_tokens, thinking.budget_tokens)
    limit = None if given == NO_LIMIT else given
    enabled = _first(
        body.enable_thinking,
        SWITCHES.get(thinking.type or ""),
        reasoning.enabled,
        think,
        _switch(word),
        None if limit is None else limit > 0,
    )
    return ThinkingOptions(enabled, EFFORTS.get(word or ""), limit, display)


def _switch(effort: object) -> bool | None:
    """Returns whether an effort asks for thoughts, None for a word that is none."""
    if not isinstance(effort, str) or effort not in EFFORTS:
        return None
    return EFFORTS[effort] is not None


def _first(*values: T | None) -> T | None:
    """Returns the first that is given."""
    return next((value for value in values if value is not None), None)
