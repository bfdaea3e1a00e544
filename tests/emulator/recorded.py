"""What was recorded of the real service, against what a workspace answers: the same keys, kinds of value and fixed words.

The files of ``recordings/`` are transcribed from public recordings of Microsoft's own tests, each with its source. Ids, names
and times are of their day; what stays is which keys there are, of what kind their values are, and the words of the list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("recordings")
FIXED = frozenset(
    {
        "code", "codeUri", "ComponentName", "credentialsType", "datastoreType", "discoveryUrl", "endpoint", "hash_sha256",
        "hash_version", "id", "innerError", "isAnonymous", "isArchived", "isDefault", "jobOutputType", "jobServiceType",
        "jobType", "MessageFormat", "mlFlowTrackingUri", "mode", "nodeCount", "orchestrator", "protocol", "provisioningState",
        "serviceDataAccessAuthIdentity", "shmSize", "studio", "targetType", "type", "uri", "_azureml.ComputeTargetType",
    }
)  # fmt: skip
"""Keys whose values are the same in every workspace, once its names are taken out."""
_NAMES = (
    (re.compile(r"/subscriptions/[^/]+/resource[gG]roups/[^/]+/providers/[^/]+/workspaces/[^/?]+"), "{workspace}"),
    (re.compile(r"/subscriptions/[^/]+/resourcegroups/[^/]+/workspaces/[^/?]+"), "{wsid}"),
    (re.compile(r"[a-z0-9]+(\.api\.azureml\.ms)"), r"{region}\1"),
    (re.compile(r"[a-z0-9]+(\.blob\.core\.windows\.net)(:443)?"), r"{account}\1"),
    (re.compile(r"(blob\.core\.windows\.net/)[^/]+/?(.*)$"), r"\1{container}"),
    (re.compile(r"(/(?:jobs|codes|runs)/)[^/?]+"), r"\1{name}"),
    (re.compile(r"(/versions/)[^/?]+"), r"\1{version}"),
    (re.compile(r"(dcid\.)[^/]+"), r"\1{name}"),
)


def recording(name: str) -> Any:
    """One file."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def differences(recorded: Any, answered: Any, *, absent: frozenset[str] = frozenset(), where: str = "") -> list[str]:
    """Where an answer is not as it was recorded.

    Args:
        recorded: JSON of the recording.
        answered: JSON of the answer, which may have more keys.
        absent: Places (``properties.stages``) that need not be there, or may be null, in this workspace.
        where: The place of both.
    """
    return list(_differences(recorded, answered, absent, where))


def _differences(recorded: Any, answered: Any, absent: frozenset[str], where: str) -> Iterator[str]:
    if recorded is None or (where in absent and answered is None):
        return
    if isinstance(recorded, Mapping):
        if not isinstance(answered, Mapping):
            yield f"{where}: {answered!r} is no object"
            return
        for key, value in recorded.items():
            place = f"{where}.{key}".lstrip(".")
            if key in answered:
                yield from _differences(value, answered[key], absent, place)
            elif place not in absent:
                yield f"{place}: missing; recorded as {value!r}"
    elif isinstance(recorded, list):
        if not isinstance(answered, list):
            yield f"{where}: {answered!r} is no list"
        elif recorded and answered:
            yield from _differences(recorded[0], answered[0], absent, where)
    elif type(answered) is not type(recorded):
        yield f"{where}: {answered!r} where {recorded!r} was recorded"
    elif where.rpartition(".")[2] in FIXED and unnamed(answered) != unnamed(recorded):
        yield f"{where}: {unnamed(answered)!r} where {unnamed(recorded)!r} was recorded"


def unnamed(value: Any) -> Any:
    """A text without the names of its workspace; anything else as it is."""
    if isinstance(value, str):
        for pattern, with_ in _NAMES:
            value = pattern.sub(with_, value)
    return value
