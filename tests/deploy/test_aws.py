"""The commands of deploy.aws: every call that they make, against moto's server with real boto3."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from deploy.aws import image, versions
from tests.deploy.conftest import Account
from tests.support.moto_stacks import REGION


def test_the_first_deployment_prints_the_url_of_a_function_that_streams(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.run("deploy", "kindling")
    url = account.client("lambda").get_function_url_config(FunctionName="kindling")
    assert capsys.readouterr().out == f"{url['FunctionUrl']}\n"
    assert url["InvokeMode"] == "RESPONSE_STREAM"
    assert url["AuthType"] == "AWS_IAM"
    assert account.served == "1"
    assert account.configuration["PackageType"] == "Image"


def test_the_image_is_pushed_after_a_login_and_deployed_by_its_digest(account: Account) -> None:
    account.run("deploy", "kindling")
    registry = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
    assert [login[:2] for login in account.docker.logins] == [(registry, "AWS")]
    (pushed,) = account.client("ecr").describe_images(repositoryName="kindling")["imageDetails"]
    assert account.function()["Code"]["ImageUri"] == f"{registry}/kindling@{pushed['imageDigest']}"


def test_the_repository_lets_lambda_read_it_and_never_moves_a_tag(account: Account) -> None:
    account.run("deploy", "kindling")
    ecr = account.client("ecr")
    (repository,) = ecr.describe_repositories()["repositories"]
    assert repository["imageTagMutability"] == "IMMUTABLE"
    policy = json.loads(ecr.get_repository_policy(repositoryName="kindling")["policyText"])
    (statement,) = policy["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    functions = f"arn:aws:lambda:{REGION}:123456789012:function:*"
    assert statement["Condition"] == {"StringLike": {"aws:SourceArn": functions}}
    assert "imageCountMoreThan" in str(ecr.get_lifecycle_policy(repositoryName="kindling"))


def test_an_update_serves_a_new_version_of_the_new_image_and_keeps_what_was_set(
    account: Account,
) -> None:
    account.run("deploy", "kindling", "--set", "MemorySize=3008", "Slots=2")
    first = account.code
    account.docker.built = b"two"
    account.run("deploy", "kindling", "--set", "Slots=8", "--set", "Timeout=60")
    assert account.served == "2"
    assert account.configuration["Timeout"] == 60
    assert account.code != first
    assert account.configuration["MemorySize"] == 3008
    assert account.configuration["Environment"]["Variables"]["KINDLING_SLOTS"] == "8"


def test_the_same_deployment_again_pushes_and_publishes_nothing(account: Account) -> None:
    account.run("deploy", "kindling")
    account.run("deploy", "kindling")
    assert account.versions == ["1"]
    assert len(account.docker.pushes) == 1


def test_again_publishes_a_version_though_nothing_changed(account: Account) -> None:
    account.run("deploy", "kindling")
    account.run("deploy", "kindling", "--again")
    assert account.served == "2"


def test_the_served_version_and_the_one_before_are_kept(account: Account) -> None:
    for built in (b"one", b"two", b"three"):
        account.docker.built = built
        account.run("deploy", "kindling")
    assert account.versions == ["2", "3"]
    assert account.served == "3"


def test_rolling_back_serves_the_version_before(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.run("deploy", "kindling")
    first = account.code
    account.docker.built = b"two"
    account.run("deploy", "kindling")
    account.run("rollback", "kindling")
    assert account.served == "1"
    assert account.code == first
    assert capsys.readouterr().out.endswith("kindling serves version 1.\n")


def test_what_was_rolled_back_from_is_never_what_one_rolls_back_to(account: Account) -> None:
    for built in (b"good", b"bad"):
        account.docker.built = built
        account.run("deploy", "kindling")
    account.run("rollback", "kindling")
    account.docker.built = b"better"
    account.run("deploy", "kindling")
    assert account.served == "3"
    account.run("rollback", "kindling")
    assert account.served == "1"


def test_deploying_again_what_is_served_leaves_the_version_to_roll_back_to(
    account: Account,
) -> None:
    account.run("deploy", "kindling")
    account.docker.built = b"two"
    account.run("deploy", "kindling")
    account.run("deploy", "kindling")
    account.run("rollback", "kindling")
    assert account.served == "1"


def test_rolling_back_a_first_version_says_that_there_is_none_before(account: Account) -> None:
    account.run("deploy", "kindling")
    with pytest.raises(SystemExit, match="There is no version before 1"):
        account.run("rollback", "kindling")


def test_rolling_back_what_was_never_deployed_names_the_region(account: Account) -> None:
    with pytest.raises(SystemExit, match=f"There is no function kindling in {REGION}"):
        account.run("rollback", "kindling")


def test_deleting_leaves_nothing_behind(account: Account) -> None:
    account.run("deploy", "kindling")
    account.run("delete", "kindling")
    assert account.client("lambda").list_functions()["Functions"] == []
    assert account.client("ecr").describe_repositories()["repositories"] == []
    assert account.client("logs").describe_log_groups()["logGroups"] == []
    assert account.client("iam").list_roles()["Roles"] == []


def test_deleting_what_is_not_there_is_no_error(account: Account) -> None:
    account.run("delete", "kindling")


def test_the_architecture_is_the_images_own(account: Account) -> None:
    account.docker.architecture = "arm64"
    account.run("deploy", "kindling")
    assert account.configuration["Architectures"] == ["arm64"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "Memory=1"], "--set takes no Memory. It takes ApiKeySecret, "),
        (["--set", "ServedVersion=7"], "--set takes no ServedVersion"),
        (["--set", "ImageUri=a", "Architecture=b"], "--set takes no Architecture, ImageUri"),
        (["--image", "nowhere"], "There is no image nowhere here: `make images` builds it."),
    ],
)
def test_what_cannot_be_deployed_ends_with_a_sentence_before_aws_is_asked_for_anything(
    account: Account, arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match=sentence):
        account.run("deploy", "kindling", *arguments)
    assert account.client("ecr").describe_repositories()["repositories"] == []


def test_an_image_for_another_cpu_is_refused(account: Account) -> None:
    account.docker.architecture = "riscv64"
    with pytest.raises(SystemExit, match="Lambda takes amd64 or arm64"):
        account.run("deploy", "kindling")


def test_versions_that_cannot_be_deleted_do_not_hide_the_url(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = ClientError({"Error": {"Code": "AccessDeniedException"}}, "DeleteFunction")

    def keep(*_: object) -> None:
        raise denied

    monkeypatch.setattr(versions, "keep", keep)
    with pytest.raises(SystemExit, match=r"https://\S+ is deployed, .*AccessDenied"):
        account.run("deploy", "kindling")
    assert account.served == "1"


def test_a_push_shows_how_far_it_is_and_leaves_the_output_to_the_url(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(image, "DOCKER", "echo")
    image.docker("push", "layers", is_shown=True)
    assert capfd.readouterr() == ("", "push layers\n")
