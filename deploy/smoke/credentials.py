"""Credentials for each platform: functions from a request to the headers that prove who asks.

Google's token travels in a header of its own, which Cloud Run takes off again: Authorization stays
free for the API key. A signature of AWS's is Authorization itself.
https://docs.cloud.google.com/run/docs/authenticating/service-to-service
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from deploy.smoke.failure import Failure

Prove = Callable[[str, str, bytes], Mapping[str, str]]
"""Method, URL and body of a request -> headers."""


def nobody() -> Prove:
    """No credentials: for what is open, or guarded by an API key alone."""
    return lambda _method, _url, _body: {}


def aws() -> Prove:
    """Signature version 4, for a function URL. Raises Failure without botocore or credentials."""
    try:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.session import Session
    except ImportError as error:
        raise Failure("Signing needs botocore: pip install boto3.") from error
    session = Session()
    credentials = session.get_credentials()
    if credentials is None:
        raise Failure("There are no AWS credentials: sign in as for the AWS command line.")

    def prove(method: str, url: str, body: bytes) -> Mapping[str, str]:
        region = _region(url) or session.get_config_variable("region")
        if region is None:
            raise Failure(f"{url} names no region: set AWS_REGION.")
        request = AWSRequest(method, url, {"content-type": "application/json"}, body)
        SigV4Auth(credentials.get_frozen_credentials(), "lambda", region).add_auth(request)
        return dict(request.headers)

    return prove


def google() -> Prove:
    """An identity token. Raises Failure when there is none to be had."""
    token = os.environ.get("IDENTITY_TOKEN") or _gcloud_token()
    return lambda _method, _url, _body: {"x-serverless-authorization": f"Bearer {token}"}


CREDENTIALS: Mapping[str, Callable[[], Prove]] = {"none": nobody, "aws": aws, "google": google}


def _region(url: str) -> str | None:
    """Finds the region in https://ID.lambda-url.REGION.on.aws."""
    parts = (urlsplit(url).hostname or "").split(".")
    return parts[2] if len(parts) > 2 and parts[1] == "lambda-url" else None


def _gcloud_token() -> str:
    command = ["gcloud", "auth", "print-identity-token"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()
        raise Failure(
            f"gcloud gave no identity token; set IDENTITY_TOKEN. It said: {said}"
        ) from error
    return done.stdout.strip()
