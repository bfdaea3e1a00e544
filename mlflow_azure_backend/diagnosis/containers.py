"""Causes that only jobs in containers have: the engine would not start them, or their image is not what they need."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding, Matcher
from mlflow_azure_backend.status import TerminationReason


def _never_started(pattern: str) -> Callable[[Callable[[Case], Finding]], Matcher]:
    """Makes a matcher of what the engine said when it would not start the container."""
    words: Final = re.compile(pattern, re.I)

    def decorate(explain: Callable[[Case], Finding]) -> Matcher:
        def match(case: Case) -> Finding | None:
            if case.evidence.reason != TerminationReason.START_FAILED.value or case.evidence.message is None:
                return None
            return explain(case) if words.search(case.evidence.message) else None

        return match

    return decorate


@_never_started(r"could not select device driver|nvidia-container|libnvidia-ml|unknown or invalid runtime")
def no_gpus(_case: Case) -> Finding:
    """The engine has nothing that hands GPUs on."""
    return Finding(
        "this docker engine has no GPUs to give",
        "install the NVIDIA Container Toolkit, or leave out resources.gpus",
    )


@_never_started(r"exec format error")
def other_architecture(case: Case) -> Finding:
    """The kernel does not know the image's programs."""
    return Finding(f"{_image(case)} is for another kind of processor", "name an image that is made for this machine")


@_never_started(r'"/bin/sh".*no such file|/bin/sh: no such file|exec: .*not found')
def no_shell(case: Case) -> Finding:
    """An entry point is a shell command."""
    return Finding(
        f"{_image(case)} has no shell that an entry point could run in",
        "build on an image that has one, such as:  FROM python:3.11-slim",
    )


@_never_started(r"no space left on device")
def disk_full(_case: Case) -> Finding:
    """Not the client's disk, but the engine's."""
    return Finding("the disk of the docker engine is full", "make room:  docker system prune")


def _image(case: Case) -> str:
    return "the image" if case.evidence.image is None else case.evidence.environment
