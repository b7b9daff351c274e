"""A URL and the version behind it: none that asks for no key is ever behind an open one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.conftest import Account
from tests.support import moto_stacks

OPEN = ("--set", "UrlAuthType=NONE", "ApiKeySecret=one")
CLOSED = ("--set", "UrlAuthType=AWS_IAM", "ApiKeySecret=")


def door(account: Account) -> tuple[str, bool]:
    """Returns how the URL lets one in, and whether what it serves asks for a key."""
    url = account.client("lambda").get_function_url_config(FunctionName="kindling")
    return url["AuthType"], "KINDLING_API_KEY" in account.configuration["Environment"]["Variables"]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (CLOSED, OPEN, "UrlAuthType"),
        (OPEN, CLOSED, "UrlAuthType"),
        (OPEN, ("--set", "ApiKeySecret=two"), "API key"),
        (("--set", "RuntimeClient=awslambdaric"), ("--set", "RuntimeClient=streaming"), "Runtime"),
    ],
)
def test_a_version_that_was_made_for_another_url_is_not_rolled_back_to(
    account: Account, first: tuple[str, ...], second: tuple[str, ...], what: str
) -> None:
    account.run("deploy", "kindling", *first)
    account.run("deploy", "kindling", *second)
    before = door(account)
    with pytest.raises(SystemExit, match=f"Version 1 has another {what}"):
        account.run("rollback", "kindling")
    assert account.served == "2"
    assert door(account) == before


def test_a_version_with_the_same_key_is_rolled_back_to(account: Account) -> None:
    account.run("deploy", "kindling", *OPEN)
    account.run("deploy", "kindling", "--set", "Slots=2")
    account.run("rollback", "kindling")
    assert account.served == "1"
    assert door(account) == ("NONE", True)


@pytest.mark.parametrize(("first", "second"), [(OPEN, CLOSED), (CLOSED, OPEN)])
def test_at_no_step_is_the_door_open_without_a_key(
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    first: tuple[str, ...],
    second: tuple[str, ...],
) -> None:
    account.run("deploy", "kindling", *first)
    seen = [door(account)]
    for kind in (moto_stacks.Alias, moto_stacks.Url):
        update = kind.update

        def watched(resource: Any, update: Any = update) -> None:
            update(resource)
            seen.append(door(account))

        monkeypatch.setattr(kind, "update", watched)
    account.run("deploy", "kindling", *second)
    assert len(seen) == 3
    assert ("NONE", False) not in seen
    assert door(account) == (second[1].removeprefix("UrlAuthType="), second is OPEN)


def test_a_closed_url_lets_in_no_one_but_the_account(account: Account) -> None:
    account.run("deploy", "kindling", *OPEN)
    account.run("deploy", "kindling", *CLOSED)
    policy = account.client("lambda").get_policy(FunctionName="kindling", Qualifier="live")
    assert '"*"' not in policy["Policy"]
    assert "123456789012" in policy["Policy"]


def test_another_client_changes_the_urls_mode(account: Account) -> None:
    account.run("deploy", "kindling", "--set", "RuntimeClient=awslambdaric")
    account.run("deploy", "kindling", "--set", "RuntimeClient=streaming")
    url = account.client("lambda").get_function_url_config(FunctionName="kindling")
    assert url["InvokeMode"] == "RESPONSE_STREAM"
