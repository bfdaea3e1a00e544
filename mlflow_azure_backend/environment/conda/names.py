"""Which PyPI project a conda package is.

Most have the same name. Those that have not stand in ``names.json``, which says where it was taken from.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path


def pypi_name(conda_name: str) -> str:
    """The canonical name on PyPI of a conda package that holds Python modules."""
    return _differing().get(conda_name, re.sub(r"[-_.]+", "-", conda_name).lower())


@functools.cache
def _differing() -> dict[str, str]:
    names: dict[str, str] = json.loads((Path(__file__).parent / "names.json").read_text(encoding="utf-8"))["names"]
    return names
