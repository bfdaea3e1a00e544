"""Which files of a project belong to its snapshot, why the others do not, their hash, and packing them.

Read ``taking.py`` first: it is the recipe. ``walk.py`` decides what belongs to a snapshot and returns a ``Listing``: it
asks ``patterns.py`` (gitignore's language), ``rules.py`` (the lists), ``ignore_files.py`` and ``work_tree.py`` (git).
``contents.py`` reads files, ``stat_cache.py`` spares it files that are known, ``key_material.py`` finds credentials in
them. ``archive.py`` packs and unpacks; ``values.py`` holds what comes out.
"""

from __future__ import annotations

from mlflow_azure_backend.snapshot.archive import extract_archive
from mlflow_azure_backend.snapshot.rules import DEFAULT_MAX_SIZE, SnapshotRules
from mlflow_azure_backend.snapshot.taking import take_snapshot, write_archive
from mlflow_azure_backend.snapshot.values import LeftOut, Snapshot, SnapshotFile, content_hash, rule_for

__all__ = [
    "DEFAULT_MAX_SIZE",
    "LeftOut",
    "Snapshot",
    "SnapshotFile",
    "SnapshotRules",
    "content_hash",
    "extract_archive",
    "rule_for",
    "take_snapshot",
    "write_archive",
]
