"""Commands about environments: what the cache holds, making room in it, and locks beside a project."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from mlflow_azure_backend.cli.commands import say_json
from mlflow_azure_backend.config.values import Duration, Size
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.journal import cache_home
from mlflow_azure_backend.planning import counted, in_bytes

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.inventory import CachedEnvironment


def _quantity(kind: Any) -> Callable[[str], Any]:
    """A duration (seconds) or a size (bytes), as the configuration takes it."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(text: str) -> Any:
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            raise click.BadParameter(f"{text!r}: {error.errors()[0]['msg']}") from None

    return read


@click.group("env")
def env() -> None:
    """Look at the environments that were built on this machine.

    \b
    Example: mlflow-azure env list
    """


@env.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_environments(as_json: bool) -> None:
    """List the built environments, the last used one first.

    \b
    Example: mlflow-azure env list
    """
    from mlflow_azure_backend.environment import inventory

    cache = cache_home(os.environ)
    found = inventory.list_environments(cache)
    if as_json:
        say_json([_facts(one) for one in found])
        return
    console = Console()
    if not found:
        console.note(f"no environment is built yet in {cache}")
        return
    console.table(
        ("KEY", "STATE", "PYTHON", "PACKAGES", "SIZE", "LAST USED"),
        [
            (one.key[:12], one.state, one.python, str(one.packages), in_bytes(one.size), _when(one.last_used))
            for one in found
        ],
    )
    console.note(f"{in_bytes(sum(one.size for one in found))} in {cache}")


@click.command()
@click.option(
    "--older-than", type=_quantity(Duration), metavar="DURATION", help="Only what was not used for so long: 30d, 12h."
)
@click.option("--max-size", type=_quantity(Size), metavar="SIZE", help="Only until the rest fits into so much: 10GB.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def prune(older_than: float | None, max_size: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove built environments, the longest unused first; those of running jobs stay.

    Broken ones always go. What is removed is built again when a run needs it.

    \b
    Example: mlflow-azure prune --older-than 30d --max-size 20GB
    """
    from mlflow_azure_backend.environment import inventory

    cache = cache_home(os.environ)
    console, removed = Console(), list[inventory.CachedEnvironment]()
    for one in inventory.prune(cache, older_than=older_than, max_size=max_size, dry_run=dry_run):
        removed.append(one)
        if not as_json:
            state = f"{one.state}, " if one.state == "broken" else ""
            console.note(f"{one.key[:12]}  {state}{in_bytes(one.size)}, last used {_when(one.last_used)}")
    if as_json:
        say_json([_facts(one) for one in removed])
        return
    size, own = sum(one.size for one in removed), sum(one.own_size for one in removed)
    shared = f"; {in_bytes(size - own)} more of them uv's cache holds too: `uv cache prune`" if size > own else ""
    verb = "would be " if dry_run else ""
    console.note(f"{counted(len(removed), 'environment')} {verb}removed, {in_bytes(own)} {verb}freed{shared}")


@click.command()
@click.argument("uri")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when the lock is missing or stale.")
@click.option("--upgrade", is_flag=True, help="Resolve again, with the newest versions that fit.")
@click.option("--version", "-v", help="Branch, tag or commit of a git project, for --check.")
@click.option("--backend-config", "-c", metavar="FILE|JSON", help="JSON or YAML file, or JSON.")
@click.option(
    "--env-manager",
    type=click.Choice(["virtualenv", "uv", "conda"]),
    help="As for `mlflow run`; by default the file's.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def lock(
    uri: str,
    check: bool,
    upgrade: bool,
    version: str | None,
    backend_config: str | None,
    env_manager: str | None,
    as_json: bool,
) -> None:
    """Write the lock of a project's environment beside it, for every later run to use.

    \b
    Example: mlflow-azure lock . --check
    """
    if check and upgrade:
        raise click.UsageError("give only one of --check and --upgrade")
    from mlflow_azure_backend.config import read_config_argument
    from mlflow_azure_backend.locking import check_lock, wanted_of, write_lock

    config = {} if backend_config is None else read_config_argument(backend_config)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        project = wanted_of(uri, version, {**config, "ENV_MANAGER": env_manager}, Path(folder) / "checkout", os.environ)
        if check:
            answer = check_lock(project)
        else:
            with console.phase("environment") as line:
                answer = write_lock(project, cache=cache_home(os.environ), upgrade=upgrade, on_progress=line.progress)
            for note in project.wanted.notes:
                console.note(note)
    if as_json:
        say_json(asdict(answer))
    elif answer.is_current:
        console.note(answer.text)
    else:
        console.error(answer.text)
    if not answer.is_current:
        sys.exit(1)


def _facts(one: CachedEnvironment) -> dict[str, Any]:
    return {**asdict(one), "key": one.key, "path": str(one.path), "last_used": _when(one.last_used)}


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
