"""Inputs at places that are known before the job runs, so that its command can name them with every character right.

Where Azure ML mounts an input is known on the node only, and it puts that path into a command without quotes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from .node import CannotRun


def link_places(places: Mapping[str, str], variables: Mapping[str, str]) -> None:
    """Make a link at each place to where the input is; the ranks of a node make the same ones.

    Args:
        places: By its place, the variable that holds an input's path.
        variables: The job's.

    Raises:
        CannotRun: An input is not there, or its place cannot be made.
    """
    for place, name in places.items():
        target = variables.get(name)
        if not target:
            raise CannotRun(f"Azure ML does not say where an input is ({name}); look at the job's data in the studio")
        try:
            Path(place).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                Path(place).symlink_to(target)
        except OSError as error:
            raise CannotRun(f"{place} cannot be made: {error.strerror}") from None
