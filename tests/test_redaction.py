"""What grants access is taken out of what we write, and nothing else is."""

from __future__ import annotations

import pytest

from mlflow_azure_backend.redaction import without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:hunter2@host:5000/x", "http://host:5000/x"),
        ("postgresql://user:p%40ss@host/db", "postgresql://host/db"),
        ("https://token@host/x.git", "https://host/x.git"),
        ("see http://a:b@c and https://d:e@f/g", "see http://c and https://f/g"),
        (
            "https://acc.blob.core.windows.net/c/b?sv=2022&sig=a%2Bb%3D&se=2026",
            "https://acc.blob.core.windows.net/c/b?sv=2022&sig=***&se=2026",
        ),
        ("https://host/x?access_token=abc#top", "https://host/x?access_token=***#top"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("mail me@host, not //", "mail me@host, not //"),
        ("https://host/path@v1?page=2", "https://host/path@v1?page=2"),
    ],
)
def test_addresses_lose_their_credentials(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
