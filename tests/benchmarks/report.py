"""``docs/benchmarks.md``: one line for each goal; a line that was not measured this time keeps what it said, its reason
and its machine too."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import Result

PAGE: Final = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_HEAD: Final = """\
# Benchmarks

Written by `make bench`; measure a few again with `make bench ARGS="P2 P5"`. Each number is the median of ratios, ours
divided by the peer's, both measured by turns on the same machine (A B A B …, the first pair dropped; nine pairs, three
where one takes half a minute), with the bootstrap's 95 % interval. A goal is met when the whole interval is
on the right side of it, missed when all of it is on the wrong one; else the measurement does not show it.
CPU time counts every process that either side waited for; memory is the peak of the largest of them. Absolute times on
a shared machine mean nothing, so there are none; quantities that are not ratios name their unit.

"""
_TABLE: Final = """\
| id | ours | peer | goal | measured | 95 % interval | | CPU | memory | of |
|---|---|---|---|---|---|---|---|---|---|
"""


def update(results: Iterable[Result], load: float, page: Path = PAGE) -> None:
    """Replace the lines of what was measured.

    Args:
        results: What was measured.
        load: The machine's load average before the first of them: what others did meanwhile.
        page: The file.
    """
    lines, reasons, machines = _read(page)
    for result in results:
        lines[result.id] = line_of(result)
        machines[result.id] = _machine(load)
        reasons.pop(result.id, None)
        if result.verdict != "met" and result.why is not None:
            reasons[result.id] = f"- **{result.id}** {result.why()}"
    ids = sorted(lines, key=_order)
    table = "".join(f"{lines[each]}\n" for each in ids)
    missed = "".join(f"{reasons[each]}\n" for each in ids if each in reasons)
    said = f"\n## Not met, and why\n\n{missed}" if missed else ""
    measured = "".join(
        f"- {', '.join(each for each in ids if machines.get(each) == machine)}: {machine}\n"
        for machine in dict.fromkeys(machines[each] for each in ids if each in machines)
    )
    page.write_text(f"{_HEAD}{_TABLE}{table}{said}\n## Measured on\n\n{measured}", encoding="utf-8")


def line_of(result: Result) -> str:
    """The table's line for one result."""
    low, high = result.interval
    unit = f" {result.goal.unit}" if result.goal.unit else ""
    cells = (
        result.id,
        result.ours,
        result.peer or "—",
        str(result.goal),
        f"{_short(statistics.median(result.values))}{unit}",
        f"{_short(low)} to {_short(high)}",
        result.verdict,
        _short(statistics.median(result.cpu)) if result.cpu else "",
        _short(statistics.median(result.memory)) + (" MiB" * (not result.peer)) if result.memory else "",
        str(len(result.values)),
    )
    return f"| {' | '.join(cells)} |"


def _read(page: Path) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Lines, reasons and machines by id."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    lines = {
        match[1]: match[0] for match in re.finditer(r"^\| (P\w[\w/ .-]*?|list|status) \| .*\|$", text, re.MULTILINE)
    }
    reasons = {match[1]: match[0] for match in re.finditer(r"^- \*\*(.+?)\*\* .*$", text, re.MULTILINE)}
    measured = re.finditer(r"^- (?!\*)(.+?): (\d{4}-.*)$", text, re.MULTILINE)
    machines = {identity: match[2] for match in measured for identity in match[1].split(", ")}
    return lines, reasons, machines


def _order(identity: str) -> tuple[int, str]:
    number = re.match(r"P(\d+)", identity)
    return (int(number[1]) if number else 1000, identity)


def _machine(load: float) -> str:
    names = re.findall(r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", _text("/proc/meminfo"), re.MULTILINE)
    parts = [
        f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}",
        f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("mlflow", "azure-ai-ml")),
    ]
    day = datetime.now(timezone.utc).date().isoformat()
    return f"{day}, {', '.join(part for part in parts if part)}, load {load:.1f} before"


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _short(number: float) -> str:
    return f"{number:.3g}"
