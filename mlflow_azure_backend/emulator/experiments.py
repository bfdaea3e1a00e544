"""The numbers of experiments. Azure's are GUIDs; MLflow's server code, which answers here, keeps integers."""

from __future__ import annotations

import hashlib

DEFAULT = "Default"
"""The experiment that MLflow's server has from the start, with the number 0."""


def experiment_id(name: str) -> int:
    """The number of the experiment of this name: the same wherever it is asked, so that nobody has to hand it out."""
    if name == DEFAULT:
        return 0
    return 10**17 + int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
