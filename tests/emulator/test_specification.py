"""What the emulator takes is what Microsoft published: its own description against the generated client's, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mlflow_azure_backend.emulator import specification
from mlflow_azure_backend.emulator.shapes import ANYTHING, ListOf, MapOf, Plain, Record, Shape, Text
from tests.emulator.schema import models

BODIES = {
    "JOB": "JobBase",
    "CODE_VERSION": "CodeVersion",
    "PENDING_UPLOAD": "PendingUploadRequestDto",
    "ENVIRONMENT_VERSION": "EnvironmentVersion",
    "MODEL_VERSION": "ModelVersion",
    "DATA_VERSION": "DataVersionBase",
    "COMPUTE": "ComputeResource",
    "ONLINE_ENDPOINT": "OnlineEndpoint",
    "ONLINE_DEPLOYMENT": "OnlineDeployment",
}
NEWER = {
    "assetName",
    "assetVersion",
    "autoDeleteSetting",
    "autologgerSettings",
    "dataCollector",
    "datasets",
    "dockerArgsList",
    "notificationSetting",
    "parentJobName",
    "pathOnCompute",
    "queueSettings",
    "stage",
    "startupProbe",
}
"""Keys that came after 2023-04-01; azure-ai-ml 1.35 carries them or the recordings of preview versions show them."""


def disagreements(shape: Shape, type_: str, where: str) -> Iterator[str]:
    """Where a description and a model's attribute say different things."""
    if shape is ANYTHING:
        return
    plain = {"str": Text, "bool": Plain, "int": Plain, "iso-8601": Text, "duration": Text}
    if type_[0] in "{[":
        if not isinstance(shape, MapOf if type_[0] == "{" else ListOf):
            yield f"{where}: {type_} is described by {type(shape).__name__}"
        else:
            yield from disagreements(shape.of, type_[1:-1], where)
    elif type_ in plain:
        if not isinstance(shape, plain[type_]):
            yield f"{where}: {type_} is described by {type(shape).__name__}"
    elif isinstance(shape, Record):
        yield from _of_record(shape, getattr(models, type_), where)
    else:
        yield f"{where}: {type_} is described by {type(shape).__name__}"


def _of_record(shape: Record, kind: Any, where: str) -> Iterator[str]:
    if not shape.by:
        yield from _of_keys(shape.keys, shape.required, kind, where)
        return
    ((name, subtypes),) = vars(kind)["_subtype_map"].items()
    if kind._attribute_map[name]["key"] != shape.by:
        yield f"{where}: the discriminator is {kind._attribute_map[name]['key']}"
    for value, variant in shape.variants.items():
        if value not in subtypes:
            yield f"{where}: there is no {shape.by} {value}"
            continue
        keys, required = (
            {shape.by: Text(), **shape.keys, **variant.keys},
            (shape.by, *shape.required, *variant.required),
        )
        yield from _of_keys(keys, required, getattr(models, subtypes[value]), f"{where}[{value}]")


def _of_keys(keys: Mapping[str, Shape], required: tuple[str, ...], kind: Any, where: str) -> Iterator[str]:
    published = {one["key"]: (name, one["type"]) for name, one in kind._attribute_map.items()}
    for key in sorted(set(keys) ^ set(published)):
        if key not in NEWER:
            yield f"{where}.{key}: only {'described' if key in keys else 'published'}"
    for key in set(keys) & set(published):
        name, type_ = published[key]
        if kind._validation.get(name, {}).get("required", False) != (key in required):
            yield f"{where}.{key}: required is {key in required} here"
        yield from disagreements(keys[key], type_, f"{where}.{key}")


@pytest.mark.parametrize("name", BODIES)
def test_description_is_the_published_one(name: str) -> None:
    assert list(disagreements(getattr(specification, name), BODIES[name], name)) == []
