"""moto's server, with the resource types of Lambda that its CloudFormation lacks or reads in part.

moto knows the calls behind AWS::Lambda::Alias and Url, but makes no stack of them, and of a
Function it passes on a few properties only. Here each type makes the call that it stands for: by
boto3, so that botocore checks every property that the template fills in against AWS's own service
model, and at the same server, so that what a stack made is there for everyone to see.

Where moto departs from AWS, this makes up for it:
- It adds resources to a stack before it changes those that are there. A version is therefore
  published when its number is first asked for, which is after the function has changed.
- It deletes a function before or after what belongs to it, as it comes.
- It removes from a stack what its DeletionPolicy retains.
The rest is in moto_mends.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import boto3
import httpx
from botocore.exceptions import ClientError
from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.server import ThreadedMotoServer

from tests.support.moto_mends import mended

# boto3's own word for "no real account": moto looks at none of it.
CREDENTIALS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
REGION = "eu-west-1"


@contextmanager
def moto_server() -> Iterator[str]:
    """Its URL; it starts with an empty account."""
    parsing.get_model_map().update({made.cloudformation_type(): made for made in TYPES})
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    LambdaResource.endpoint = f"http://{host}:{port}"
    httpx.post(f"{LambdaResource.endpoint}/moto-api/reset", trust_env=False).raise_for_status()
    with mended({made.cloudformation_type() for made in TYPES}):
        try:
            yield LambdaResource.endpoint
        finally:
            server.stop()


class LambdaResource(CloudFormationModel):
    """Base of the types: their properties, and a client of the server that they run in."""

    endpoint: ClassVar[str]
    is_retained = False

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.client: Any = boto3.client(
            "lambda", endpoint_url=self.endpoint, region_name=REGION, **CREDENTIALS
        )

    @property
    def function(self) -> dict[str, Any]:
        """The function that the properties name, by its name or by an ARN of its alias."""
        name = self.properties["FunctionName"]
        if not name.startswith("arn:"):
            return {"FunctionName": name}
        *_, function, alias = name.split(":")
        return {"FunctionName": function, "Qualifier": alias}

    @classmethod
    def create_from_cloudformation_json(cls, *_named: Any, **_names: Any) -> LambdaResource:
        _name, cloudformation_json, *_ = _named
        made = cls(cloudformation_json["Properties"])
        made.is_retained = cloudformation_json.get("DeletionPolicy") == "RetainExceptOnCreate"
        made.create()
        return made

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: LambdaResource,
        new_resource_name: str,  # noqa: ARG003  this and the rest as moto names them
        cloudformation_json: dict[str, Any],
        account_id: str,  # noqa: ARG003
        region_name: str,  # noqa: ARG003
    ) -> LambdaResource:
        if original_resource.properties != cloudformation_json["Properties"]:
            original_resource.properties = cloudformation_json["Properties"]
            original_resource.update()
        return original_resource

    def create(self) -> None:
        raise NotImplementedError

    def update(self) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError

    def delete(self, _account: str, _region: str) -> None:
        if not self.is_retained:
            with suppress(ClientError):  # the function went first
                self.remove()

    @classmethod
    def has_cfn_attr(cls, _attribute: str) -> bool:
        return True


class Function(LambdaResource):
    CODE = ("Code", "Architectures", "PackageType", "ReservedConcurrentExecutions")

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::Function"

    @property
    def physical_resource_id(self) -> str:
        return str(self.properties["FunctionName"])

    @property
    def environment(self) -> dict[str, Any]:
        """Numbers of a template are strings to the API."""
        variables = self.properties["Environment"]["Variables"]
        return {"Variables": {name: str(value) for name, value in variables.items()}}

    def create(self) -> None:
        reserve = self.properties.get("ReservedConcurrentExecutions")
        given = {k: v for k, v in self.properties.items() if k != "ReservedConcurrentExecutions"}
        self.client.create_function(**given | {"Environment": self.environment})
        if reserve is not None:
            self.client.put_function_concurrency(
                **self.function, ReservedConcurrentExecutions=reserve
            )

    def update(self) -> None:
        given = {k: v for k, v in self.properties.items() if k not in self.CODE}
        given.setdefault("ImageConfig", {})
        self.client.update_function_configuration(**given | {"Environment": self.environment})
        self.client.update_function_code(
            **self.function,
            ImageUri=self.properties["Code"]["ImageUri"],
            Architectures=self.properties["Architectures"],
        )

    def remove(self) -> None:
        self.client.delete_function(**self.function)

    def get_cfn_attribute(self, _attribute: str) -> str:
        found = self.client.get_function_configuration(**self.function)
        return str(found["FunctionArn"])


class Version(LambdaResource):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::Version"

    def create(self) -> None:
        self.version = ""

    def remove(self) -> None:
        self.client.delete_function(**self.function, Qualifier=self.version)

    def get_cfn_attribute(self, _attribute: str) -> str:
        if not self.version:
            self.version = self.client.publish_version(**self.function)["Version"]
        return self.version


class Alias(LambdaResource):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::Alias"

    @property
    def physical_resource_id(self) -> str:
        return str(self.client.get_alias(**self.function, Name=self.properties["Name"])["AliasArn"])

    def create(self) -> None:
        self._apply(self.client.create_alias)

    def update(self) -> None:
        self._apply(self.client.update_alias)

    def _apply(self, call: Any) -> None:
        given = dict(self.properties)
        provisioned = given.pop("ProvisionedConcurrencyConfig", None)
        call(**given)
        if provisioned is not None:
            self.client.put_provisioned_concurrency_config(
                **self.function, Qualifier=given["Name"], **provisioned
            )

    def remove(self) -> None:
        self.client.delete_alias(**self.function, Name=self.properties["Name"])


class Url(LambdaResource):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::Url"

    @property
    def _given(self) -> dict[str, Any]:
        named = dict(self.properties)
        return {"FunctionName": named.pop("TargetFunctionArn"), **named}

    def create(self) -> None:
        self.url = self.client.create_function_url_config(**self._given)["FunctionUrl"]

    def update(self) -> None:
        self.client.update_function_url_config(**self._given)

    def remove(self) -> None:
        function = self.properties["TargetFunctionArn"]
        self.client.delete_function_url_config(FunctionName=function)

    def get_cfn_attribute(self, _attribute: str) -> str:
        return str(self.url)


class Permission(LambdaResource):
    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Lambda::Permission"

    @property
    def physical_resource_id(self) -> str:
        return str(self.properties["Action"]).replace(":", "-")

    def create(self) -> None:
        given = self.properties | self.function | {"StatementId": self.physical_resource_id}
        self.client.add_permission(**given)

    def update(self) -> None:
        """All its properties are part of what it is: AWS makes another one."""
        self.remove()
        self.create()

    def remove(self) -> None:
        self.client.remove_permission(**self.function, StatementId=self.physical_resource_id)


TYPES: tuple[type[LambdaResource], ...] = (Function, Version, Alias, Url, Permission)
