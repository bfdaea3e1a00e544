"""What the kernel says of this container's memory: cgroup v2, else v1; nothing where it is silent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60
"""Bytes; v1 says no limit by a number beyond this."""


@dataclass(frozen=True)
class Memory:
    """The container's memory so far; None: not known.

    Attributes:
        oom_kills: Processes that were killed for want of it.
        peak: Bytes that were used at most.
        limit: Bytes that may be used; None also: not limited.
    """

    oom_kills: int | None
    peak: int | None
    limit: int | None


def memory_now() -> Memory:
    """Ask the kernel."""
    for folder in (_own_group("0::"), _ROOT):
        if (folder / "memory.events").is_file():
            kills = _field(folder / "memory.events", "oom_kill")
            return Memory(kills, _number(folder / "memory.peak"), _number(folder / "memory.max"))
    for folder in (_own_group(r"\d+:[^:]*\bmemory\b[^:]*:", "memory"), _ROOT / "memory"):
        if (folder / "memory.oom_control").is_file():
            limit = _number(folder / "memory.limit_in_bytes")
            limit = None if limit is None or limit >= _UNLIMITED else limit
            kills = _field(folder / "memory.oom_control", "oom_kill")
            return Memory(kills, _number(folder / "memory.max_usage_in_bytes"), limit)
    return Memory(None, None, None)


def _own_group(controller: str, below: str = "") -> Path:
    """Where this process's group is, as far as this container sees it."""
    found = re.search(rf"^{controller}/(.*)$", _text(Path("/proc/self/cgroup")), flags=re.MULTILINE)
    return _ROOT / below / (found.group(1) if found else "")


def _field(path: Path, name: str) -> int | None:
    found = re.search(rf"^{name} (\d+)$", _text(path), flags=re.MULTILINE)
    return int(found.group(1)) if found else None


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
