"""The commands: `python -m deploy.aws deploy kindling`, and so on. `make deploy-lambda` runs it.

Region and credentials are found as the AWS command line finds them. What is deployed has one name:
the stack, the function and the repository.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from deploy.aws import deployment
from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; a failure ends the program with one sentence and status 1."""
    options = _parser().parse_args(arguments)
    try:
        session = boto3.Session(region_name=options.region)
        if options.command == "deploy":
            settings = dict(options.set)
            print(deployment.deploy(session, options.name, options.image, settings, options.again))
        elif options.command == "rollback":
            print(f"{options.name} serves version {deployment.roll_back(session, options.name)}.")
        else:
            deployment.delete(session, options.name)
            print(f"{options.name} is deleted, its images with it.")
    except (DeployError, BotoCoreError, ClientError) as error:
        sys.exit(f"{options.command} {options.name}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.aws")
    commands = parser.add_subparsers(dest="command", required=True)
    words = {
        "deploy": "push the image, create or update the stack, and print the URL",
        "rollback": "serve the version before the one that is served",
        "delete": "remove the stack and the repository",
    }
    for word, help_text in words.items():
        command = commands.add_parser(word, help=help_text)
        command.add_argument("name", help="of the stack, the function and the repository")
        command.add_argument("--region")
        if word == "deploy":
            _add_deploy_options(command)
    return parser


def _add_deploy_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--image", default="kindling-lambda", help="as `make images` names it")
    command.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        type=_setting,
        metavar="PARAMETER=VALUE",
        help="of template.yaml; what is not named stays as it is",
    )
    command.add_argument(
        "--again", action="store_true", help="publish a version though nothing changed"
    )


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not PARAMETER=VALUE")
    return name, value


if __name__ == "__main__":
    main()
