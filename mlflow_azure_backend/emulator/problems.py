"""Wrong use of the emulator: one line and the fix."""

from __future__ import annotations


class EmulatorProblem(Exception):
    """What is wrong and what to do next, in one line."""
