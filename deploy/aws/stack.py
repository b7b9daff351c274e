"""The CloudFormation stack: all calls to it. Knows nothing of what the template holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, WaiterError

from deploy.aws import ownership
from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3

# An hour in all: what has a network takes up to 45 minutes to be deleted.
WAITING = {"Delay": 5, "MaxAttempts": 720}
# What is left of a stack when making or deleting it failed; nothing but deleting helps.
BROKEN = {"CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"}
NOTHING_TO_DO = "No updates are to be performed"


def parameters(session: boto3.Session, name: str) -> dict[str, str]:
    """The stack's parameters as they are; none when there is no stack.

    Raises DeployError for what is left of a broken stack and, as the others do, for one that is not
    ours.
    """
    stack = _describe(session, name) or {}
    if stack.get("StackStatus") in BROKEN:
        raise DeployError(f"The stack {name} is in {stack['StackStatus']}: `delete` it first.")
    listed = stack.get("Parameters", [])
    return {pair["ParameterKey"]: pair["ParameterValue"] for pair in listed}


def outputs(session: boto3.Session, name: str) -> dict[str, str]:
    """The stack's outputs. Raises DeployError when there is no stack."""
    stack = _describe(session, name)
    if stack is None:
        raise DeployError(f"There is no stack {name} in {session.region_name}.")
    return {pair["OutputKey"]: pair["OutputValue"] for pair in stack.get("Outputs", [])}


def apply(
    session: boto3.Session, name: str, template: str | None, chosen: Mapping[str, str]
) -> None:
    """Creates or updates the stack and waits for it; `template` None keeps the one that it has.

    Raises DeployError with the reason that CloudFormation gives. A stack that cannot be created is
    removed again, one that cannot be updated stays as it was.
    """
    client = session.client("cloudformation")
    listed = [{"ParameterKey": key, "ParameterValue": value} for key, value in chosen.items()]
    body = {"UsePreviousTemplate": True} if template is None else {"TemplateBody": template}
    request = {"StackName": name, "Parameters": listed, "Capabilities": ["CAPABILITY_IAM"], **body}
    if _describe(session, name) is None:
        made = client.create_stack(**request, OnFailure="DELETE", Tags=[ownership.TAG])
        _wait(client, "create", made["StackId"])
        return
    try:
        made = client.update_stack(**request)
    except ClientError as error:
        if NOTHING_TO_DO in str(error):
            return
        raise
    _wait(client, "update", made["StackId"])


def delete(session: boto3.Session, name: str) -> None:
    """Removes the stack and waits for it; it is no error if there is none."""
    stack = _describe(session, name)
    if stack is None:
        return
    client = session.client("cloudformation")
    client.delete_stack(StackName=name)
    _wait(client, "delete", stack["StackId"])


def _describe(session: boto3.Session, name: str) -> dict[str, Any] | None:
    try:
        found = session.client("cloudformation").describe_stacks(StackName=name)
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    stack: dict[str, Any] = found["Stacks"][0]
    ownership.check(stack.get("Tags", []), f"stack {name}")
    return stack


def _wait(client: Any, operation: str, stack_id: str) -> None:
    """Waits by the stack's id, since a name leads to no events once the stack is deleted."""
    waiter = client.get_waiter(f"stack_{operation}_complete")
    try:
        waiter.wait(StackName=stack_id, WaiterConfig=WAITING)
    except WaiterError as error:
        reason = _reason(client, stack_id, f"{operation.upper()}_IN_PROGRESS")
        raise DeployError(f"CloudFormation: {reason or error}") from error


def _reason(client: Any, stack_id: str, start: str) -> str:
    """The first failure since the stack had the status `start`; those after it follow from it.

    Events come newest first. A stack that cannot be created is deleted before this is asked, so its
    latest operation is not the one that failed.
    """
    reason = ""
    for event in client.describe_stack_events(StackName=stack_id)["StackEvents"]:
        status = event["ResourceStatus"]
        if status.endswith("_FAILED") and "ResourceStatusReason" in event:
            reason = f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}"
        if event["PhysicalResourceId"] == stack_id and status == start:
            break
    return reason
