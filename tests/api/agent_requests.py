"""Requests to /v1/messages as agents send them, shortened, with where each shape was reported."""

from __future__ import annotations

from typing import Any, NamedTuple

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"

EPHEMERAL = {"type": "ephemeral"}
FOR_AN_HOUR = {"type": "ephemeral", "ttl": "1h"}
KEEP_THOUGHTS = {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}
USER_ID = '{"device_id": "5e55", "account_uuid": "", "session_id": "5e551011-0000-4000-8000-0000"}'
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "thinking-token-count-2026-05-13,context-management-2025-06-27,"
    "prompt-caching-scope-2026-01-05,mid-conversation-system-2026-04-07,effort-2025-11-24",
    "anthropic-dangerous-direct-browser-access": "true",
    "user-agent": "claude-cli/2.1.278 (external, cli)",
    "x-app": "cli",
    "x-stainless-timeout": "600",
}
"""Claude Code's."""


class AgentRequest(NamedTuple):
    """The request of one agent, and the prompt that it becomes."""

    name: str
    source: str
    path: str
    body: dict[str, Any]
    prompt: str

    def __str__(self) -> str:
        return self.name


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


READ = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "file_path": {"description": "The absolute path.", "type": "string"},
            "offset": {"type": "integer", "minimum": 0},
        },
        "required": ["file_path"],
        "additionalProperties": False,
    },
}
BASH = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {"type": "object", "properties": {"command": {"type": "string"}}},
    "cache_control": FOR_AN_HOUR,
}

REQUESTS = [
    AgentRequest(
        "Claude Code's first turn",
        "https://github.com/ggml-org/llama.cpp/pull/20623",
        MESSAGES,
        {
            "model": "claude-opus-4-8",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        text("<system-reminder>\nToday is Monday.\n</system-reminder>\n"),
                        text("hey", cache_control=FOR_AN_HOUR),
                    ],
                }
            ],
            "system": [
                text("x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli;"),
                text("You are Claude Code.", cache_control=EPHEMERAL),
                text("Be brief.", cache_control=FOR_AN_HOUR),
            ],
            "tools": [READ, BASH],
            "metadata": {"user_id": USER_ID},
            "max_tokens": 32_000,
            "thinking": {"type": "adaptive"},
            "context_management": KEEP_THOUGHTS,
            "diagnostics": {"previous_message_id": None},
            "output_config": {"effort": "high"},
            "stream": True,
        },
        "<system>You are Claude Code.\nBe brief."
        "<user><system-reminder>\nToday is Monday.\n</system-reminder>\nhey<assistant>",
    ),
    AgentRequest(
        "a system prompt in one text",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/server-chat.cpp",
        MESSAGES,
        {
            "model": "claude",
            "max_tokens": 100,
            "system": "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; "
            "cch=a5145;You are Claude Code.",
            "messages": [{"role": "user", "content": "Hi"}],
        },
        "<system>You are Claude Code.<user>Hi<assistant>",
    ),
    AgentRequest(
        "Claude Code's look at its quota",
        "https://github.com/BerriAI/litellm/issues/13252",
        MESSAGES,
        {
            "model": "claude-haiku-4-5",
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "quota"}],
            "metadata": {"user_id": USER_ID},
        },
        "<user>quota<assistant>",
    ),
    AgentRequest(
        "Claude Code's title of a session",
        "https://github.com/mnfst/llm-gateway/pull/2258",
        MESSAGES,
        {
            "model": "claude-haiku-4-5",
            "max_tokens": 32_000,
            "messages": [{"role": "user", "content": [text("Fix the login.")]}],
            "system": [text("Write a title.")],
            "tools": [],
            "temperature": 1,
            "thinking": {"type": "disabled"},
            "output_config": {
                "format": {
                    "type": "json_schema",
                    "schema": {
                        "type": "object",
                        "properties": {"title": {"type": "string"}},
                        "required": ["title"],
                        "additionalProperties": False,
                    },
                }
            },
            "stream": True,
        },
        "<system>Write a title.<user>Fix the login.<assistant>",
    ),
    AgentRequest(
        "Claude Code's count of its tools",
        "https://github.com/envoyproxy/ai-gateway/issues/1360",
        COUNT,
        {
            "model": "claude-opus-4-8",
            "messages": [{"role": "user", "content": "foo"}],
            "tools": [READ, BASH],
            "thinking": {"type": "adaptive"},
        },
        "",
    ),
    AgentRequest(
        "a system message after the user's",
        "https://github.com/ogx-ai/ogx/issues/5982",
        MESSAGES,
        {
            "model": "claude-opus-4-8",
            "max_tokens": 64_000,
            "system": [text("Be brief.")],
            "messages": [
                {"role": "user", "content": [text("hello")]},
                {"role": "system", "content": "An MCP server says hello."},
            ],
        },
        "<system>Be brief.<user>hello<system>An MCP server says hello.<assistant>",
    ),
    AgentRequest(
        "a loop of tools with thoughts",
        "https://github.com/vllm-project/agentic-api/pull/99",
        MESSAGES,
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 32_000,
            "thinking": {"type": "enabled", "budget_tokens": 31_999},
            "tools": [READ, BASH, {"type": "web_search_20250305", "name": "web_search"}],
            "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            "messages": [
                {"role": "user", "content": "What is in a.txt?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "I read it.", "signature": "EqQB"},
                        {"type": "redacted_thinking", "data": "EmwK"},
                        text("I look."),
                        {
                            "type": "tool_use",
                            "id": "toolu_1",
                            "name": "Read",
                            "input": {"file_path": "/a.txt"},
                            "caller": {"type": "direct"},
                        },
                        {"type": "tool_use", "id": "toolu_2", "name": "Bash", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_1",
                            "content": [text("one"), text("two")],
                        },
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_2",
                            "content": "no command",
                            "is_error": True,
                            "cache_control": EPHEMERAL,
                        },
                        text("<system-reminder>Go on.</system-reminder>"),
                    ],
                },
            ],
        },
        "<user>What is in a.txt?<assistant>(I read it.)I look."
        "[Read {'file_path': '/a.txt'}][Bash {}]<tool>one\ntwo<tool>Error: no command"
        "<user><system-reminder>Go on.</system-reminder><assistant>",
    ),
    AgentRequest(
        "an error that says what it is, and a result without content",
        "https://github.com/anthropics/claude-code/issues/61822",
        MESSAGES,
        {
            "model": "claude",
            "max_tokens": 100,
            "messages": [
                {"role": "user", "content": [text("Go."), text("", cache_control=EPHEMERAL)]},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "a", "name": "Read", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "is_error": True,
                            "content": "<tool_use_error>No such file.</tool_use_error>",
                        },
                        {"type": "tool_result", "tool_use_id": "b", "is_error": True},
                        {"type": "tool_result", "tool_use_id": "c"},
                    ],
                },
            ],
        },
        "<user>Go.<assistant>[Read {}]<tool><tool_use_error>No such file.</tool_use_error>"
        "<tool>Error<tool><assistant>",
    ),
    AgentRequest(
        "Claude Code's judge of a command",
        "https://github.com/ollama/ollama/blob/84f673ae43f50a0a952f44f4b92164e970808041/"
        "anthropic/testdata/claude_auto_stage1.json",
        MESSAGES,
        {
            "model": "qwen3.5:latest",
            "max_tokens": 2112,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        text("<transcript>\n"),
                        text("User: Run the tests.\n"),
                        text("</transcript>\n"),
                        text("Return the verdict."),
                    ],
                }
            ],
            "system": [text("Judge.", cache_control=EPHEMERAL), text("In one word.")],
            "stop_sequences": ["</block>"],
        },
        "<system>Judge.\nIn one word."
        "<user><transcript>\nUser: Run the tests.\n</transcript>\nReturn the verdict.<assistant>",
    ),
    AgentRequest(
        "an answer that the client begins",
        "https://platform.claude.com/docs/en/build-with-claude/working-with-messages",
        MESSAGES,
        {
            "model": "claude-3-5-haiku-20241022",
            "max_tokens": 512,
            "temperature": 0,
            "system": [text("Is it a new topic?")],
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": [text("{")]},
            ],
        },
        "<system>Is it a new topic?<user>Hello<assistant>{",
    ),
    AgentRequest(
        "a search that Anthropic would run",
        "https://github.com/experientiallabs/experiential/pull/905",
        MESSAGES,
        {
            "model": "claude",
            "max_tokens": 100,
            "thinking": {"type": "enabled"},
            "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
            "messages": [
                {"role": "user", "content": "Search."},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                        text("Found.", citations=None),
                    ],
                },
                {"role": "user", "content": [text("More.")]},
            ],
        },
        "<user>Search.<assistant>Found.<user>More.<assistant>",
    ),
    AgentRequest(
        "a tool that a search for tools found",
        "https://github.com/sgl-project/sglang/blob/a745968a1d74b591d51a04dc97789bbba7f579a8/"
        "python/sglang/srt/entrypoints/anthropic/tool_reference.py",
        MESSAGES,
        {
            "model": "claude",
            "max_tokens": 100,
            "tools": [
                {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
                {**READ, "defer_loading": True},
            ],
            "messages": [
                {"role": "user", "content": "Find a tool."},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "a", "name": "ToolSearch", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "content": [{"type": "tool_reference", "tool_name": "Read"}],
                        }
                    ],
                },
            ],
        },
        "<user>Find a tool.<assistant>[ToolSearch {}]<tool>Read<assistant>",
    ),
    AgentRequest(
        "a request of Amazon Bedrock's",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html",
        MESSAGES,
        {
            "anthropic_version": "bedrock-2023-05-31",
            "anthropic_beta": ["computer-use-2024-10-22"],
            "max_tokens": 100,
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "Hi"}],
            "top_k": 250,
            "top_p": 0.999,
        },
        "<system>Be brief.<user>Hi<assistant>",
    ),
    AgentRequest(
        "what a search found, and a summary",
        "https://platform.claude.com/docs/en/build-with-claude/search-results",
        MESSAGES,
        {
            "model": "claude",
            "max_tokens": 100,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "compaction", "content": "We talked of towers.", "signature": "E"},
                        {
                            "type": "search_result",
                            "source": "https://example.com",
                            "title": "Towers",
                            "content": [text("It is 330 m high.")],
                            "citations": {"enabled": True},
                        },
                        text("How high?"),
                    ],
                }
            ],
        },
        "<user>We talked of towers.\nTowers\nhttps://example.com\nIt is 330 m high.\nHow high?"
        "<assistant>",
    ),
]
