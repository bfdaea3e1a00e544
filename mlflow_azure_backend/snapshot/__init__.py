"""Which files of a project belong to its snapshot, why the others do not, their hash, and packing them.

Read ``taking.py`` first: it is the recipe. ``listing.py`` walks and decides (``patterns.py`` reads gitignore's
language, ``rules.py`` holds the lists, ``work_tree.py`` asks git), ``contents.py`` reads files (``stat_cache.py`` saves
it the trouble, ``key_material.py`` looks for credentials), ``archive.py`` packs and unpacks.
"""

from __future__ import annotations

from mlflow_azure_backend.snapshot.archive import extract_archive
from mlflow_azure_backend.snapshot.rules import DEFAULT_MAX_SIZE, SnapshotRules
from mlflow_azure_backend.snapshot.taking import take_snapshot, write_archive
from mlflow_azure_backend.snapshot.values import LeftOut, Snapshot, SnapshotFile, rule_for

__all__ = [
    "DEFAULT_MAX_SIZE",
    "LeftOut",
    "Snapshot",
    "SnapshotFile",
    "SnapshotRules",
    "extract_archive",
    "rule_for",
    "take_snapshot",
    "write_archive",
]
