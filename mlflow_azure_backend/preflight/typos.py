"""Undeclared parameters that are slips for declared ones.

MLflow hands an undeclared parameter on as ``--name value``, and programs rely on that. So a slip is certain only when
the name differs from a declared one, which nobody gave, by one letter too many, one too few or two that changed places,
and the program itself never mentions it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mlflow_azure_backend.project import Argument, EntryPoint

_SHORTEST: Final = 4
"""Letters; shorter names are near to too many others."""


def meant_parameter(name: str, entry_point: EntryPoint, arguments: Sequence[Argument], program: str) -> str | None:
    """The declared parameter that an undeclared one was meant to be; None when that is not certain.

    Args:
        name: The undeclared one.
        entry_point: Whose parameters they are.
        arguments: All parameters with their values.
        program: The source of the program that gets them.
    """
    spelling = re.escape(name).replace("_", "[-_]").replace(r"\-", "[-_]")
    if re.search(rf"(?<!\w){spelling}(?!\w)", program) or re.search(rf"--{spelling}(?![\w-])", entry_point.command):
        return None
    declared = {parameter.name: parameter.default for parameter in entry_point.parameters}
    untouched = [one.name for one in arguments if one.declared and one.given == declared.get(one.name)]
    near = [one for one in untouched if _is_slip(name, one)]
    return near[0] if len(near) == 1 else None


def _is_slip(typed: str, meant: str) -> bool:
    """One letter too many or too few, or two neighbours that changed places; never a beginning of the other.

    The beginning of an option's name stands for the option in ``argparse``, and a plural may be an option of its own.
    """
    if min(len(typed), len(meant)) < _SHORTEST or typed.startswith(meant) or meant.startswith(typed):
        return False
    longer, shorter = (typed, meant) if len(typed) > len(meant) else (meant, typed)
    if len(longer) == len(shorter) + 1:
        return any(
            longer[:index] + longer[index + 1 :] == shorter and longer[index].isalpha() for index in range(len(longer))
        )
    swapped = (typed[:index] + typed[index + 1] + typed[index] + typed[index + 2 :] for index in range(len(typed) - 1))
    return typed != meant and len(typed) == len(meant) and meant in swapped
