"""The lock of a container's own environment: which image, by its content where that is known."""

from __future__ import annotations

import re
from typing import Final

from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.errors import EnvironmentUnavailable

_FORMAT: Final = "# mlflow-azure image lock 1"
_TEXT: Final = re.compile(rf"{_FORMAT}\nimage: (?P<name>\S+)\n(?:content: (?P<content>\S+)\n)?")


def image_lock(name: str, content: str | None) -> EnvironmentLock:
    """The environment that an image is.

    Args:
        name: The image as the user names it.
        content: ``NAME@sha256:…`` or an image's id; None for one that is not here and has not been pulled yet.
    """
    return _lock(name, name, content)


def read_recorded(text: str) -> EnvironmentLock:
    """Understand a lock that was made elsewhere or earlier: the very image, where its content was known.

    Raises:
        EnvironmentUnavailable: It is no lock of ours.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise EnvironmentUnavailable("the recorded image is no lock of this version")
    return _lock(found["content"] or found["name"], found["name"], found["content"])


def _lock(image: str, name: str, content: str | None) -> EnvironmentLock:
    text = f"{_FORMAT}\nimage: {name}\n" + ("" if content is None else f"content: {content}\n")
    return EnvironmentLock("image", "", None, "", (), text, image=image)


def content_of(lock: EnvironmentLock) -> str | None:
    """What an image's lock knows of its content."""
    found = _TEXT.fullmatch(lock.text)
    return None if found is None else found["content"]


def image_named_in(text: str) -> str | None:
    """The image that the text of a lock is about; None for locks of another kind."""
    found = _TEXT.fullmatch(text)
    return None if found is None else found["name"]
