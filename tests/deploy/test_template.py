"""The stack's template: what cfn-lint says of it, and what its parameters make of it in moto.

That SnapStart takes a snapshot and that a rule refuses is AWS's part: here cfn-lint and botocore's
service model check what the template writes, and a small reader of rules what it refuses.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import decode, decode_str

from deploy.aws.release import TEMPLATE, parameters, template
from tests.deploy.conftest import Account

ACCESS_POINT = (
    "arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-0123456789abcdef0"
)
MOUNT = (
    f"FileSystemAccessPoint={ACCESS_POINT}",
    "Subnets=subnet-1,subnet-2",
    "SecurityGroups=sg-1",
)
OPEN = ("UrlAuthType=NONE", "ApiKeySecret=kindling-api-key")
OWN_RUNTIME = ["-m", "handlers.aws_lambda.runtime"]


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "ap-northeast-1"])
def test_cfn_lint_finds_nothing(region: str, tmp_path: Path) -> None:
    written = tmp_path / "template.yaml"
    written.write_text(template({"ImageUri": "any"}))
    program = Path(sys.executable).with_name("cfn-lint")
    command = [str(program), "--regions", region, "--template", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_parameters_are_those_that_cfn_lint_reads() -> None:
    read, _ = decode(str(TEMPLATE))
    assert parameters().keys() == read["Parameters"].keys()
    assert parameters()["MemorySize"] == "1769"
    assert parameters()["ImageUri"] == ""


def test_a_release_has_a_version_of_its_own_and_changes_the_function() -> None:
    one, other = template({"Slots": "1"}), template({"Slots": "2"})
    assert template({"Slots": "1"}) == one
    (first,) = _resources(one) - _resources(other)
    assert first.startswith("Version")
    assert f"Description: Kindling, {first}\n" in one


def test_a_version_outlives_its_resource_but_not_the_update_that_failed_to_make_it() -> None:
    read, _ = decode(str(TEMPLATE))
    assert read["Resources"]["VersionOfRelease"]["DeletionPolicy"] == "RetainExceptOnCreate"


def _resources(text: str) -> set[str]:
    read, _ = decode_str(text)
    return set(read["Resources"])


def statements(account: Account) -> list[dict[str, Any]]:
    policy = account.client("lambda").get_policy(FunctionName="kindling", Qualifier="live")
    listed: list[dict[str, Any]] = json.loads(policy["Policy"])["Statement"]
    return listed


def test_a_url_has_both_permissions_for_this_account_alone(account: Account) -> None:
    account.run("deploy", "kindling")
    by_url, by_function = statements(account)
    assert (by_url["Action"], by_url["FunctionUrlAuthType"]) == (
        "lambda:InvokeFunctionUrl",
        "AWS_IAM",
    )
    assert (by_function["Action"], by_function["InvokedViaFunctionUrl"]) == (
        "lambda:InvokeFunction",
        True,
    )
    assert {by_url["Principal"], by_function["Principal"]} == {"123456789012"}
    assert by_url["Resource"].endswith(":function:kindling:live")


def test_another_caller_is_named(account: Account) -> None:
    caller = "arn:aws:iam::210987654321:role/web"
    account.run("deploy", "kindling", "--set", f"Caller={caller}")
    assert {statement["Principal"] for statement in statements(account)} == {caller}


def test_an_open_url_lets_everyone_in_who_has_the_key(account: Account) -> None:
    account.run("deploy", "kindling", "--set", *OPEN)
    assert {statement["Principal"] for statement in statements(account)} == {"*"}
    variables = account.configuration["Environment"]["Variables"]
    # moto leaves it at that; CloudFormation puts the secret in.
    assert variables["KINDLING_API_KEY"] == "{{resolve:secretsmanager:kindling-api-key}}"


@pytest.mark.parametrize(
    ("client", "entry_point", "mode"),
    [
        (
            "streaming",
            {"EntryPoint": ["python"], "Command": ["-m", "handlers.aws_lambda.runtime"]},
            0,
        ),
        ("awslambdaric", {"EntryPoint": [], "Command": []}, 1),
    ],
)
def test_the_urls_mode_follows_the_runtime_client(
    account: Account, client: str, entry_point: object, mode: int
) -> None:
    account.run("deploy", "kindling", "--set", f"RuntimeClient={client}")
    configured = account.function()["Configuration"]["ImageConfigResponse"]
    assert configured["ImageConfig"] == entry_point
    url = account.client("lambda").get_function_url_config(FunctionName="kindling")
    assert url["InvokeMode"] == ("RESPONSE_STREAM", "BUFFERED")[mode]


def policies(account: Account) -> dict[str, Any]:
    iam = account.client("iam")
    (role,) = iam.list_roles()["Roles"]
    named = {"RoleName": role["RoleName"]}
    documents = {
        name: iam.get_role_policy(**named, PolicyName=name)["PolicyDocument"]
        for name in iam.list_role_policies(**named)["PolicyNames"]
    }
    # moto keeps a document out of a template as Python prints it.
    return {name: ast.literal_eval(text)["Statement"] for name, text in documents.items()}


def test_the_role_may_write_its_own_log_and_nothing_else(account: Account) -> None:
    account.run("deploy", "kindling")
    ((name, (statement,)),) = policies(account).items()
    assert name == "log"
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"].endswith(":123456789012:log-group:/aws/lambda/kindling:*")


def test_a_model_in_a_bucket_may_be_read_and_no_other_place_of_it(account: Account) -> None:
    account.run("deploy", "kindling", "--set", "ModelUri=s3://models/smollm2/v1")
    (statement,) = policies(account)["model"]
    assert statement["Action"] == "s3:GetObject"
    assert statement["Resource"] == "arn:aws:s3:::models/smollm2/v1/*"
    variables = account.configuration["Environment"]["Variables"]
    assert variables["MODEL_URI"] == "s3://models/smollm2/v1"


def test_a_model_elsewhere_needs_no_permission(account: Account) -> None:
    account.run("deploy", "kindling", "--set", "ModelUri=https://models.example/smollm2")
    assert policies(account).keys() == {"log"}


def test_a_mounted_model_brings_its_network_and_a_permission_to_read(account: Account) -> None:
    account.run("deploy", "kindling", "--set", *MOUNT)
    mounting, networking = policies(account)["file-system"]
    assert mounting["Action"] == "elasticfilesystem:ClientMount"
    assert ACCESS_POINT in str(mounting["Condition"])
    assert all(action.startswith("ec2:") for action in networking["Action"])
    configuration = account.configuration
    assert configuration["Environment"]["Variables"]["MODEL_DIR"] == "/mnt/model"
    assert configuration["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]


def test_the_log_is_kept_as_long_as_asked(account: Account) -> None:
    account.run("deploy", "kindling", "--set", "LogRetentionDays=7")
    (group,) = account.client("logs").describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/aws/lambda/kindling", 7)


def test_the_numbers_reach_the_function(account: Account) -> None:
    numbers = ("Timeout=900", "EphemeralStorage=2048", "ReservedConcurrency=3", "ContextLength=512")
    rest_api = ("RestApi=stream", "RestSeconds=600")
    account.run("deploy", "kindling", "--set", *numbers, *rest_api)
    configuration = account.function()["Configuration"]
    assert configuration["Timeout"] == 900
    assert configuration["EphemeralStorage"] == {"Size": 2048}
    assert configuration["Environment"]["Variables"]["KINDLING_CONTEXT_LENGTH"] == "512"
    assert configuration["Environment"]["Variables"]["KINDLING_REST_API"] == "stream"
    assert configuration["Environment"]["Variables"]["KINDLING_REST_SECONDS"] == "600"
    reserved = account.client("lambda").get_function_concurrency(FunctionName="kindling")
    assert reserved["ReservedConcurrentExecutions"] == 3


@pytest.mark.parametrize("snapshot", ["SnapStart=None", "SnapStart=PublishedVersions"])
def test_botocore_takes_snap_start(account: Account, snapshot: str) -> None:
    account.run("deploy", "kindling", "--set", snapshot)
    assert account.served == "1"


REFUSED = [
    (("UrlAuthType=NONE",), "ApiKeySecret must name the secret"),
    (("ApiKeySecret=kindling-api-key",), "would both be the Authorization header"),
    (("SnapStart=PublishedVersions", "ProvisionedConcurrency=1"), "exclude each other"),
    (("SnapStart=PublishedVersions", *MOUNT), "does without a file system"),
    (("SnapStart=PublishedVersions", "EphemeralStorage=1024"), "512 MB"),
    (("RestApi=stream", "RuntimeClient=awslambdaric"), "RestApi must be whole"),
    ((MOUNT[0], MOUNT[2]), "needs Subnets"),
    ((MOUNT[0], MOUNT[1]), "needs SecurityGroups"),
]


@pytest.mark.parametrize(("settings", "sentence"), REFUSED)
def test_settings_that_do_not_go_together_are_refused(
    settings: tuple[str, ...], sentence: str
) -> None:
    (broken,) = broken_rules(*settings)
    assert sentence in broken


@pytest.mark.parametrize("settings", [(), OPEN, MOUNT, ("SnapStart=PublishedVersions",)])
def test_settings_that_go_together_are_taken(settings: tuple[str, ...]) -> None:
    assert broken_rules(*settings) == []


def broken_rules(*settings: str) -> list[str]:
    """moto reads no rules. These use Equals, Not and Ref alone."""
    values = parameters() | dict(setting.split("=", 1) for setting in settings)
    read, _ = decode(str(TEMPLATE))
    return [
        str(assertion["AssertDescription"])
        for rule in read["Rules"].values()
        if holds(rule["RuleCondition"], values)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], values)
    ]


def holds(condition: Any, values: dict[str, str]) -> bool:
    ((operator, operands),) = condition.items()
    if operator == "Fn::Not":
        return not holds(operands[0], values)
    assert operator == "Fn::Equals"
    left, right = (str(values[o["Ref"]] if isinstance(o, dict) else o) for o in operands)
    return left == right
