"""A run as a card in a notebook: HTML that is whole in itself, with nothing fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

_COLOURS: Final = {"FINISHED": "#1a7f37", "FAILED": "#cf222e", "KILLED": "#9a6700"}
_OTHER_COLOUR: Final = "#0969da"
_ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_LINE: Final = 300
_MOST_METRICS: Final = 8

# Colours come from the page around the card (currentColor), so that it suits light and dark notebooks.
_BOX: Final = (
    "font:13px/1.5 system-ui,sans-serif;max-width:720px;padding:12px 16px;border-radius:8px;"
    "border:1px solid color-mix(in srgb,currentColor 25%,transparent)"
)
_BADGE: Final = "display:inline-block;padding:0 9px;border-radius:10px;font-weight:600;font-size:12px;color:#fff"
_FAINT: Final = "opacity:.7"
_LOG: Final = (
    "font:12px/1.45 ui-monospace,monospace;margin:10px 0 0;padding:8px 10px;border-radius:6px;overflow-x:auto;"
    "white-space:pre;color:inherit;background:color-mix(in srgb,currentColor 7%,transparent)"
)


@dataclass(frozen=True, slots=True)
class Card:
    """What the card shows.

    Attributes:
        run_id: MLflow's run id.
        run_name: MLflow's name for it; None when it is not known.
        status: The word of MLflow's ``RunStatus``.
        project: The project and its entry point.
        phases: Name and length in seconds of what is over, in order.
        link: The run in the tracking server's pages; None when the store has no pages.
        cause: What went wrong; None when nothing did.
        fix: What to do about it; None when that is not known.
        metrics: The latest value of each.
        lines: The last lines of the log.
    """

    run_id: str
    run_name: str | None
    status: str
    project: str
    phases: Sequence[tuple[str, float]] = ()
    link: str | None = None
    cause: str | None = None
    fix: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    lines: Sequence[str] = ()

    def html(self) -> str:
        """The card; every text in it is escaped."""
        parts = (self._head(), self._facts(), self._diagnosis(), self._metrics(), self._log())
        return f'<div style="{_BOX}">{"".join(parts)}</div>'

    def _head(self) -> str:
        badge = (
            f'<span style="{_BADGE};background:{_COLOURS.get(self.status, _OTHER_COLOUR)}">{escape(self.status)}</span>'
        )
        name = escape(self.run_name or self.run_id[:8])
        if self.link is not None and self.link.startswith(("http://", "https://")):
            name = f'<a href="{escape(self.link)}" target="_blank" rel="noopener" style="color:inherit">{name}</a>'
        identity = f'<code style="{_FAINT};font-size:12px">{escape(self.run_id)}</code>'
        return f'<div>{badge}&ensp;<strong style="font-size:14px">{name}</strong>&ensp;{identity}</div>'

    def _facts(self) -> str:
        phases = [f"{escape(name)} {seconds:.1f} s" for name, seconds in self.phases]
        return f'<div style="{_FAINT};margin-top:4px">{" · ".join((escape(self.project), *phases))}</div>'

    def _diagnosis(self) -> str:
        rows = [("cause", self.cause), ("fix", self.fix)]
        return "".join(
            f'<div style="margin-top:{8 if label == "cause" else 0}px;white-space:pre-wrap">'
            f'<span style="{_FAINT};display:inline-block;width:48px">{label}</span>{escape(text)}</div>'
            for label, text in rows
            if text
        )

    def _metrics(self) -> str:
        shown = list(self.metrics.items())[:_MOST_METRICS]
        if not shown:
            return ""
        cells = "".join(
            f'<span style="display:inline-block;margin-right:20px"><span style="{_FAINT}">{escape(name)}</span>'
            f" <strong>{value:.6g}</strong></span>"
            for name, value in shown
        )
        more = (
            f'<span style="{_FAINT}">and {len(self.metrics) - len(shown)} more</span>'
            if len(self.metrics) > len(shown)
            else ""
        )
        return f'<div style="margin-top:8px">{cells}{more}</div>'

    def _log(self) -> str:
        if not self.lines:
            return ""
        # Of a bar that was drawn over itself the last state counts, and colours of a terminal are none here.
        plain = (_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in self.lines)
        cut = (line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…" for line in plain)
        return f'<pre style="{_LOG}">{escape(chr(10).join(cut))}</pre>'
