"""`python -m deploy.smoke URL`: a line for each check, and status 1 with a sentence when one fails.

--auth aws      signs each request; credentials and region as the AWS command line finds them
--auth google   sends an identity token: IDENTITY_TOKEN, or else gcloud's
KINDLING_API_KEY, where it is set, is sent as the API key.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from deploy.smoke.checks import CHECKS
from deploy.smoke.credentials import CREDENTIALS
from deploy.smoke.endpoint import Endpoint
from deploy.smoke.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every check in turn; the first that fails is the last."""
    options = _parser().parse_args(arguments)
    name = ""
    try:
        prove = CREDENTIALS[options.auth]()
        key = os.environ.get("KINDLING_API_KEY", "").strip()
        endpoint = Endpoint(options.url.rstrip("/"), prove, key, options.timeout)
        for name, check in CHECKS.items():
            print(f"{name:9}{check(endpoint)}", flush=True)
    except Failure as failure:
        sys.exit(f"{name:9}FAILED: {failure}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.smoke")
    parser.add_argument("url", help="of the function or the service")
    parser.add_argument("--auth", choices=CREDENTIALS, default="none", help="how it lets one in")
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds without a byte; a cold start is in it"
    )
    return parser


if __name__ == "__main__":
    main()
