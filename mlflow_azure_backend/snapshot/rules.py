"""What belongs to a snapshot: the user's ``snapshot`` block, and what is left out unless the user says otherwise."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.snapshot.patterns import Layer

if TYPE_CHECKING:
    from mlflow_azure_backend.snapshot.patterns import FolderPatterns

DEFAULT_MAX_SIZE: Final = 300_000_000
"""Bytes; decimal, as Azure Machine Learning counts its own limit for a snapshot."""

IGNORE_FILES: Final = (".gitignore", ".amlignore", ".mlflowignore")
"""Read in every folder, in this order; a later one beats an earlier one."""

ENVIRONMENT_MARKERS: Final = ("pyvenv.cfg", "conda-meta")
"""A folder that holds one of these is a Python or conda environment."""

ENVIRONMENT: Final = "built-in: environments"

_BUILT_IN: Final = {
    "built-in: version control": (".git", ".hg/", ".svn/"),
    "built-in: caches": (
        *("__pycache__/", "*.pyc", "*.pyo", ".mypy_cache/", ".ruff_cache/", ".pytest_cache/"),
        *(".ipynb_checkpoints/", ".tox/", ".nox/", "node_modules/", ".DS_Store"),
    ),
    "built-in: tracking data": (
        *("mlruns/", "mlartifacts/", "mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "mlflow.db-journal"),
    ),
    "built-in: run outputs": ("/outputs/",),
    "built-in: workspace settings": (".azureml/",),
}

_SECRETS: Final = (
    *(".env", ".env.*", "!.env.example", "!.env.sample", "!.env.template", "!.env.dist"),
    *("*.pem", "*.key", "*.pfx", "*.p12", "*.ppk", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    *("/.ssh/**", "/.gnupg/**", "/.docker/config.json", "/.kube/config", "credentials", "secrets.toml"),
    *(".netrc", "_netrc", ".pypirc", ".pgpass", ".git-credentials", ".databrickscfg"),
    *("azureauth.json", "accessTokens.json", "msal_token_cache.json", "application_default_credentials.json"),
    *("credentials.json", "client_secret*.json", "service-account*.json", "service_account*.json"),
)


@dataclass(frozen=True, slots=True)
class SnapshotRules:
    """The ``snapshot`` block of the backend configuration; every pattern is read as a line of a ``.gitignore``.

    Attributes:
        include: Brings back what an ignore file or a built-in rule leaves out, never a secret. A pattern with a slash
            inside (``data/small.csv``) also reaches into a folder that is left out; one without does not, so that such
            folders need not be walked. What is built in has to be named itself: ``src/`` does not bring ``src/mlruns``.
        exclude: Leaves out more; it beats ``include``.
        allow: Lifts the rule about secrets for these paths, by name and by content. It does not bring back what
            another rule leaves out.
        max_size: Bytes of all files together, before compression.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    max_size: int = DEFAULT_MAX_SIZE


def ignore_command(path: str) -> str:
    """The line for a shell in the project's folder that leaves a path out from now on."""
    pattern = "/" + re.sub(r"([*?\[\\]| $)", r"\\\1", path)
    return f"echo {shlex.quote(pattern)} >> .mlflowignore"


def with_project_lists(patterns: FolderPatterns, rules: SnapshotRules) -> FolderPatterns:
    """Add the built-in lists and the user's to the patterns of the project's folder."""
    built_in = [(group, pattern) for group, members in _BUILT_IN.items() for pattern in members]
    # File systems that do not tell cases apart are full of `KEY.PEM`.
    secrets = [("secret", pattern) for name in _SECRETS for pattern in dict.fromkeys((name, name.upper()))]
    lists = {
        Layer.BUILT_IN: built_in,
        Layer.SECRET: secrets,
        Layer.EXCLUDE: [("exclude", pattern) for pattern in rules.exclude],
        Layer.INCLUDE: [("snapshot.include", pattern) for pattern in rules.include],
        Layer.ALLOW: [("allow", pattern) for pattern in rules.allow],
    }
    for layer, lines in lists.items():
        patterns = patterns.extended(lines, layer)
    return patterns


def allows(patterns: FolderPatterns, path: str) -> bool:
    """Whether ``snapshot.allow`` names a file of the project, or a folder above it."""
    decisive = [found[Layer.ALLOW] for found in patterns.along(path, is_folder=False) if Layer.ALLOW in found]
    return bool(decisive) and not decisive[-1].negated
