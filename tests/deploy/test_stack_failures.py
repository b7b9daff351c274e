"""Tests the message about a stack that fails, in AWS's words, by Stubber: none of moto's fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from deploy.aws import ownership, stack
from deploy.aws.errors import DeployError
from tests.support.moto_stacks import CREDENTIALS, REGION

STACK_ID = f"arn:aws:cloudformation:{REGION}:123456789012:stack/kindling/1"
MISSING = ("ValidationError", "Stack with id kindling does not exist")


class Session(boto3.Session):
    """Hands out one client, whose answers are written down."""

    def __init__(self) -> None:
        super().__init__(region_name=REGION, **CREDENTIALS)
        self.stubbed: Any = super().client("cloudformation")

    def client(self, *_: Any, **__: Any) -> Any:
        return self.stubbed


def described(status: str) -> dict[str, Any]:
    found = {"StackName": "kindling", "StackId": STACK_ID, "StackStatus": status}
    return {"Stacks": [found | {"CreationTime": datetime.now(UTC), "Tags": [ownership.TAG]}]}


def event(resource: str, status: str, reason: str | None = None) -> dict[str, Any]:
    physical = STACK_ID if resource == "kindling" else resource.lower()
    told = {} if reason is None else {"ResourceStatusReason": reason}
    return told | {
        "StackId": STACK_ID,
        "EventId": "1",
        "StackName": "kindling",
        "LogicalResourceId": resource,
        "PhysicalResourceId": physical,
        "ResourceStatus": status,
        "Timestamp": datetime.now(UTC),
    }


def test_a_stack_that_cannot_be_created_says_why_and_not_what_followed() -> None:
    session = Session()
    events = [  # newest first
        event("kindling", "DELETE_COMPLETE"),
        event("Role", "DELETE_COMPLETE"),
        event(
            "kindling", "DELETE_IN_PROGRESS", "The following resource(s) failed to create: [Role]"
        ),
        event("LogGroup", "CREATE_FAILED", "Resource creation cancelled"),
        event("Role", "CREATE_FAILED", "User is not authorized to perform iam:CreateRole"),
        event("kindling", "CREATE_IN_PROGRESS", "User Initiated"),
    ]
    with Stubber(session.stubbed) as answers:
        answers.add_client_error("describe_stacks", *MISSING)
        answers.add_response("create_stack", {"StackId": STACK_ID})
        answers.add_response("describe_stacks", described("DELETE_COMPLETE"))
        answers.add_response("describe_stack_events", {"StackEvents": events})
        with pytest.raises(DeployError, match=r"^CloudFormation: Role: User is not authorized"):
            stack.apply(session, "kindling", "the template", {"Slots": "4"})


def test_an_update_that_fails_says_why_and_not_why_an_earlier_one_did() -> None:
    session = Session()
    events = [
        event("kindling", "UPDATE_ROLLBACK_COMPLETE"),
        event("Function", "UPDATE_FAILED", "MemorySize must be at most 3008"),
        event("kindling", "UPDATE_IN_PROGRESS", "User Initiated"),
        event("Alias", "UPDATE_FAILED", "of last week"),
        event("kindling", "UPDATE_IN_PROGRESS", "User Initiated"),
    ]
    with Stubber(session.stubbed) as answers:
        answers.add_response("describe_stacks", described("UPDATE_COMPLETE"))
        answers.add_response("update_stack", {"StackId": STACK_ID})
        answers.add_response("describe_stacks", described("UPDATE_ROLLBACK_COMPLETE"))
        answers.add_response("describe_stack_events", {"StackEvents": events})
        with pytest.raises(DeployError, match=r"^CloudFormation: Function: MemorySize"):
            stack.apply(session, "kindling", "the template", {"Slots": "4"})


def test_a_network_that_takes_forty_minutes_to_be_deleted_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("botocore.waiter.time.sleep", waited.append)
    session = Session()
    with Stubber(session.stubbed) as answers:
        answers.add_response("describe_stacks", described("UPDATE_COMPLETE"))
        answers.add_response("delete_stack", {})
        for _ in range(480):
            answers.add_response("describe_stacks", described("DELETE_IN_PROGRESS"))
        answers.add_response("describe_stacks", described("DELETE_COMPLETE"))
        stack.delete(session, "kindling")
    assert sum(waited) == 40 * 60


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "DELETE_FAILED"])
def test_what_is_left_of_a_broken_stack_is_told(status: str) -> None:
    session = Session()
    with Stubber(session.stubbed) as answers:
        answers.add_response("describe_stacks", described(status))
        with pytest.raises(DeployError, match=f"kindling is in {status}: `delete` it first"):
            stack.parameters(session, "kindling")
