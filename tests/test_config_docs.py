from __future__ import annotations

import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from pydantic import BaseModel

from mlflow_azure_backend.config import BackendConfig, LoadedConfig, json_schema, load_config, read_config_argument
from mlflow_azure_backend.config.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parent.parent / "docs"
WORKSPACE: dict[str, object] = {"subscription_id": "s-1", "resource_group": "ml", "workspace_name": "dev"}


def load(raw: dict[str, Any], defaults: str, folder: Path) -> LoadedConfig:
    (folder / ".git").mkdir(exist_ok=True)
    (folder / "mlflow-azure.yaml").write_text(defaults, "utf-8")
    return load_config(raw, project_folder=folder, environ={})


def keys_of(block: type[Block], prefix: str = "") -> Iterator[tuple[str, Any, list[str] | None]]:
    """Every key below ``block``, dotted, with its field and its targets (None: as the block's)."""
    for name, field in block.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        targets: Any = extra.get("targets")
        yield prefix + name, field, targets
        if inner := block_in(field.annotation):
            yield from keys_of(
                inner, f"{prefix}{name}." + ("NAME." if name in ("inputs", "outputs", "services") else "")
            )


def block_in(annotation: Any) -> type[Block] | None:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next(filter(None, map(block_in, typing.get_args(annotation))), None)


def test_the_published_schema_is_current(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    subprocess.run([sys.executable, "-m", "mlflow_azure_backend.config", path], check=True, cwd=DOCS.parent)
    published = DOCS / "backend_config.schema.json"
    # Compared as JSON: the order of keys is pydantic's affair. Older releases than the newest may differ in more.
    assert json.loads(path.read_text("utf-8")) == json.loads(published.read_text("utf-8")), (
        f"run: python -m mlflow_azure_backend.config {published}"
    )


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for block in (schema, *schema["$defs"].values()):
        assert block["additionalProperties"] is False
        assert all("description" in key for key in block["properties"].values())
    assert all("targets" in schema["properties"][key] for key in BackendConfig.model_fields)


@pytest.mark.parametrize(("key", "field"), [(key, field) for key, field, _ in keys_of(BackendConfig) if field.examples])
def test_the_schemas_examples_are_valid(key: str, field: Any) -> None:
    required: dict[str, dict[str, object]] = {
        "compute": {"name": "c", "size": "S"},
        "workspace": WORKSPACE,
        "distribution": {"type": "tensorflow" if key.endswith(("worker_count", "server_count")) else "mpi"},
        "retry": {"max": 1},
    }
    for example in field.examples:
        name, *rest = key.split(".")
        value = example
        for inner in reversed(rest):
            value = {"n" if inner == "NAME" else inner: value}
        if rest:
            value = {**required.get(name, {}), **value}
        raw = {name: value}
        jsonschema.validate(raw, json_schema())
        BackendConfig.model_validate(raw)


@pytest.mark.parametrize(
    "raw",
    [{"compue": 1}, {"timeout": []}, {"secrets": {"A": "x"}}, {"secrets": {"1": "env:A"}}, {"retry": {"on": []}}, []],
)
def test_the_schema_refuses_too(raw: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(raw, json_schema())


def test_every_key_is_documented_with_its_targets_and_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([\w, ]*?) *\| (.+?) \| (.+?) \| (.+?) \|$", page(), re.MULTILINE)
    documented = {key: (targets, default) for key, targets, _, default, _ in rows}
    keys = {key: (field, targets) for key, field, targets in keys_of(BackendConfig)}
    assert set(documented) == set(keys)
    for key, (field, targets) in keys.items():
        assert documented[key][0] == ", ".join(targets or []), key
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_unset=True)
        shown = "required" if field.is_required() else "null" if default is None else f"`{json.dumps(default)}`"
        assert documented[key][1].startswith(shown), key


def page() -> str:
    return (DOCS / "backend_config.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", page(), re.DOTALL)
    assert found
    return found


def test_the_rows_examples_are_valid() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(?:.+?\|){3} `(.+)` \|$", page(), re.MULTILINE)
    assert {key for key, _ in rows} == set(BackendConfig.model_fields)
    for key, example in rows:
        BackendConfig.model_validate({key: json.loads(example)})


@pytest.mark.parametrize("text", blocks("json"))
def test_the_documents_examples_are_valid(text: str, tmp_path: Path) -> None:
    raw = read_config_argument(text)
    loaded = load(raw, blocks("yaml")[0], tmp_path)
    loaded.for_target(loaded.config.target)
    if "COMPUTE" not in raw:
        jsonschema.validate(raw, json_schema())


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_documents_files_are_valid(text: str, tmp_path: Path) -> None:
    load({}, text, tmp_path)
    content = read_config_argument(str(tmp_path / "mlflow-azure.yaml"))
    jsonschema.validate(content, json_schema())
    for profile in (None, *content["profiles"]):
        loaded = load({"profile": profile}, text, tmp_path)
        loaded.for_target(loaded.config.target)
