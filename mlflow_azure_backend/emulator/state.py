"""The emulator's memory: JSON documents by kind and key in one SQLite file, so that a restart goes on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class State:
    """Documents by kind and key; each change is on disk when the call returns. Used from one thread."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")  # a killed process loses nothing; a power cut may
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS documents"
            " (number INTEGER PRIMARY KEY, kind TEXT, key TEXT, body TEXT, UNIQUE (kind, key))"
        )

    def get(self, kind: str, key: str) -> Any | None:
        """A copy of the document; None: there is none."""
        row = self._database.execute("SELECT body FROM documents WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, kind: str, key: str, document: Any) -> None:
        """Make or replace a document."""
        self._database.execute(
            "INSERT INTO documents (kind, key, body) VALUES (?, ?, ?)"
            " ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
            (kind, key, json.dumps(document)),
        )

    def delete(self, kind: str, key: str) -> bool:
        """Forget a document; whether there was one."""
        return self._database.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    def items(self, kind: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Keys and documents of a kind whose key starts with ``prefix``, the oldest first."""
        rows = self._database.execute(
            "SELECT key, body FROM documents WHERE kind = ? AND substr(key, 1, ?) = ? ORDER BY number",
            (kind, len(prefix), prefix),
        ).fetchall()
        for key, body in rows:
            yield key, json.loads(body)

    def close(self) -> None:
        """Close the file."""
        self._database.close()
