"""Asks in each of the ways that its argument lists, and prints what each client raises."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import instructor
import openai
import pydantic
import pydantic_ai
import smolagents
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, set_tracing_disabled
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

ADDRESSES = {"free": "http://localhost:8080/v1", "full": "http://localhost:8081/v1"}


class Person(pydantic.BaseModel):
    """A person, as the answer is parsed into it."""

    name: str
    age: int


def openai_agents(url: str, key: str, prompt: str, limit: int) -> None:
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    agent = Agent(
        "Reader",
        model=OpenAIResponsesModel(model="any", openai_client=client),
        model_settings=ModelSettings(max_tokens=limit),
        output_type=Person,
    )
    Runner.run_sync(agent, prompt)


def pydantic_ai_agent(url: str, key: str, prompt: str, limit: int) -> None:
    client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    model = OpenAIChatModel("any", provider=OpenAIProvider(openai_client=client))
    agent = pydantic_ai.Agent(
        model,
        output_type=pydantic_ai.NativeOutput(Person),
        model_settings={"max_tokens": limit},
    )
    agent.run_sync(prompt)


def instructor_client(url: str, key: str, prompt: str, limit: int) -> None:
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
    instructor.from_openai(client).create(
        model="any",
        response_model=Person,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=limit,
    )


def smolagents_agent(url: str, key: str, prompt: str, limit: int) -> None:
    model = smolagents.OpenAIModel(
        "any",
        api_base=url,
        api_key=key,
        retry=False,
        client_kwargs={"max_retries": 0},
        max_tokens=limit,
    )
    agent = smolagents.ToolCallingAgent([], model, max_steps=1, verbosity_level=0)
    agent.prompt_templates["system_prompt"] = "Be short."
    agent.run(prompt)


def raised_by(ask: Callable[[str, str, str, int], None], way: Mapping[str, Any]) -> str:
    """The error's name, and that of OpenAI's client where it is the cause."""
    try:
        ask(ADDRESSES[way["server"]], way["key"], way["prompt"], way["limit"])
    except Exception as error:  # noqa: BLE001 -- whatever comes is what is asked for
        cause = [error.__cause__] if isinstance(error.__cause__, openai.OpenAIError) else []
        return " from ".join(type(each).__name__ for each in [error, *cause])
    return "nothing"


def main(ways: list[Mapping[str, Any]]) -> None:
    """Writes the names as JSON: by client, in the order of the ways."""
    set_tracing_disabled(True)
    clients = openai_agents, pydantic_ai_agent, instructor_client, smolagents_agent
    raised = {ask.__name__: [raised_by(ask, way) for way in ways] for ask in clients}
    sys.stdout.write(json.dumps(raised) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
