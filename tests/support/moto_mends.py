"""Mends where moto departs from AWS when a stack is updated.

- It updates only what names a changed parameter itself. Here each of these types is looked at, and
  is updated where its properties came out otherwise, as through a condition.
- It updates neither a function's ImageConfig nor a URL's InvokeMode. CloudFormation clears an
  ImageConfig that its template no longer has.
- AWS::NoValue in a list stays there as None; AWS leaves the item out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from moto.awslambda import models
from moto.cloudformation import parsing

_moto_clean_json = parsing.clean_json
_moto_diff = parsing.ResourceMap.build_resource_diff
_moto_update_function = models.LambdaFunction.update_configuration
_moto_update_url = models.FunctionUrlConfig.update


@contextmanager
def mended(types: Collection[str]) -> Iterator[None]:
    """moto's server, with all resources of these types looked at in each update."""

    def diff(
        resources: parsing.ResourceMap, template: dict[str, Any], parameters: Any = None
    ) -> dict[str, Any]:
        """Sorts changes in the template's order, in which resources depend on one another."""
        actions = _moto_diff(resources, template, parameters)
        modified = [
            name
            for name, described in template["Resources"].items()
            if name not in actions["Add"]
            and (name in actions["Modify"] or described["Type"] in types)
        ]
        return actions | {"Modify": modified}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "clean_json", _clean_json)
        patch.setattr(parsing.ResourceMap, "build_resource_diff", diff)
        patch.setattr(models.LambdaFunction, "update_configuration", _update_function)
        patch.setattr(models.FunctionUrlConfig, "update", _update_url)
        yield


def _clean_json(resource_json: Any, resources_map: Any) -> Any:
    cleaned = _moto_clean_json(resource_json, resources_map)
    is_list = isinstance(resource_json, list)
    return [item for item in cleaned if item is not None] if is_list else cleaned


def _update_function(function: models.LambdaFunction, given: dict[str, Any]) -> dict[str, Any]:
    if "ImageConfig" in given:
        function.image_config = models.ImageConfig(given["ImageConfig"])
    return _moto_update_function(function, given)


def _update_url(url: models.FunctionUrlConfig, given: dict[str, Any]) -> None:
    url.config["InvokeMode"] = given.get("InvokeMode", url.config.get("InvokeMode"))
    _moto_update_url(url, given)
