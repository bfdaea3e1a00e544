"""Exchanges of our own: what an unmodified client asked of the emulator and what it was answered, without names and secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow_azure_backend.emulator import EmulatorServer

FOLDER = Path(__file__).with_name("exchanges")
_SECRET = frozenset({"access_token", "key", "primaryKey", "secondaryKey", "token", "sasToken"})
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHAPES = (
    (re.compile(r"([?&])(?:sv|sig)=[^\"\s]*"), r"\1{signature}"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"), "{time}"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{7}\b"), "{duration}"),
    (re.compile(r"[0-9a-f]{8}-{guid}"), "{container}"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "{sha256}"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "{hash}"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "{span}"),
    (re.compile(r"api-version=[^&]*"), "api-version={version}"),
)


def exchanges(emulator: EmulatorServer, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What was asked and answered since it was last forgotten, each thing once, in the order of its first time.

    Args:
        emulator: What was asked.
        names: Texts to be replaced, beside those of the workspace.
    """
    settings = emulator.settings
    own = {
        settings["workspace_id"]: "{workspace_id}",
        settings["subscription_id"]: "{subscription}",
        settings["tenant_id"]: "{tenant}",
        settings["client_id"]: "{client}",
        settings["client_secret"]: "{secret}",
        settings["storage_account"]: "{account}",
        settings["storage_key"]: "{secret}",
    }
    found: dict[str, dict[str, Any]] = {}
    for told in emulator.exchanges():
        kept = {key: value for key, value in told.items() if key == "operation" or value not in (None, {}, "")}
        one = _without(kept, {**(names or {}), **own})
        if one["operation"] == "Blob_Any":
            one["query"] = ""  # its parts are the client library's own, and the signature
        found.setdefault(json.dumps(one, sort_keys=True), one)
    return list(found.values())


def _without(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {
            _text(key, names): "{secret}" if key in _SECRET and one else _without(one, names)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_without(one, names) for one in value]
    if isinstance(value, str):
        return _text(value, names)
    return "{number}" if isinstance(value, int) and not isinstance(value, bool) and value > 10_000 else value


def _text(text: str, names: Mapping[str, str]) -> str:
    for name, placeholder in names.items():
        text = text.replace(name, placeholder)
    text = _GUID.sub("{guid}", text)
    for shape, placeholder in _SHAPES:
        text = shape.sub(placeholder, text)
    return text


def requests_of(phase: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Operations and methods of exchanges, each once."""
    return sorted({(one["operation"], one["method"]) for one in phase})
