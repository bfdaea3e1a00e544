"""Lengths of time as Azure's resources write them."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?$")


def duration(text: str) -> timedelta | None:
    """An ISO 8601 duration of days, hours, minutes and seconds; None: it is none."""
    found = _DURATION.match(text)
    return None if found is None else timedelta(**{unit: int(number) for unit, number in found.groupdict("0").items()})
