"""``python -m mlflow_azure_backend.emulator``: what ``mlflow-azure emulator`` starts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlflow_azure_backend.emulator.embedding import EmulatorServer, default_cache
from mlflow_azure_backend.emulator.problems import EmulatorProblem

_MISSING = "the emulator's parts are not installed; pip install 'mlflow-azure-backend[emulator]'"


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What ``start`` and ``run`` share."""
    command = click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=0,
        show_default="any that is free",
        help="Port of the proxy on 127.0.0.1.",
    )(command)
    command = click.option(
        "--state", type=click.Path(file_okay=False, path_type=Path), help="Folder of its state, kept."
    )(command)
    command = click.option(
        "--base-image",
        "images",
        multiple=True,
        metavar="PATTERN=IMAGE",
        help="What stands for an image here: a local one, or `process`.",
    )(command)
    return click.option(
        "--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A setting; the value is JSON or a text."
    )(command)


@click.group()
def main() -> None:
    """An Azure Machine Learning workspace on this machine, for tests and CI without Azure."""


@main.command()
@_options
def start(port: int, state: Path | None, pairs: tuple[str, ...], images: tuple[str, ...]) -> None:
    """Start a workspace, print what clients need, and serve until Ctrl-C.

    \b
    Example:
      mlflow-azure emulator start --state ./workspace
    """
    with EmulatorServer(state=state, port=port, **_settings(pairs, images)) as emulator:
        for name, value in emulator.environment().items():
            click.echo(f"export {name}={shlex.quote(value)}")
        click.echo(f"# workspace configuration: {shlex.quote(str(emulator.config_file))}")
        click.echo("# ready; Ctrl-C ends it")
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: sys.exit(0))
        try:
            emulator.wait()
        except KeyboardInterrupt:
            click.echo("", err=True)


@main.command(context_settings={"ignore_unknown_options": True})
@_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    port: int, state: Path | None, pairs: tuple[str, ...], images: tuple[str, ...], command: tuple[str, ...]
) -> None:
    """Run one command against a fresh workspace; exits with the command's own code.

    \b
    Example:
      mlflow-azure emulator run -- mlflow run . --backend azureml --backend-config '{"compute": "serverless"}'
    """
    with EmulatorServer(state=state, port=port, **_settings(pairs, images)) as emulator:
        environment = {**emulator.environment(os.environ), "MLFLOW_AZURE_EMULATOR_CONFIG": str(emulator.config_file)}
        try:
            process = subprocess.Popen(command, env=environment)
        except OSError as error:
            raise EmulatorProblem(f"{command[0]}: {error.strerror}; name a program after --") from None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the command too, and it decides
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
        problem = emulator.problem()
    if problem is not None:
        raise EmulatorProblem(f"the workspace was lost while the command ran: {problem}")
    sys.exit(code if code >= 0 else 128 - code)


@main.command(hidden=True)
@click.option("--state", type=click.Path(path_type=Path), required=True)
@click.option("--port", type=int, required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True)
@click.option("--settings", required=True)
@click.option("--leashed", is_flag=True)
def serve(state: Path, port: int, cache: Path, settings: str, leashed: bool) -> None:
    """Serve in this process; ends with standard input when leashed."""
    try:
        from mlflow_azure_backend.emulator import server
    except ModuleNotFoundError as error:
        raise EmulatorProblem(f"{error.name}: {_MISSING}") from None
    server.run(state, cache, json.loads(settings), port, leashed=leashed)


@main.command()
def coverage() -> None:
    """Print docs/emulator_coverage.md."""
    from mlflow_azure_backend.emulator.coverage import table
    from mlflow_azure_backend.emulator.services import ALL

    click.echo(table(ALL), nl=False)


@main.command()
def prepare() -> None:
    """Install Azurite now, so that the first start needs no network."""
    from mlflow_azure_backend.emulator import azurite

    click.echo(azurite.install(azurite.find_node(), default_cache()))


def _settings(pairs: tuple[str, ...], images: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {"base_images": _base_images(images)} if images else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise EmulatorProblem(f"--set {pair}: write NAME=VALUE")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _base_images(pairs: tuple[str, ...]) -> dict[str, str]:
    images = {}
    for pair in pairs:
        pattern, equals, image = pair.rpartition("=")
        if not equals or not pattern or not image:
            raise EmulatorProblem(f"--base-image {pair}: write PATTERN=IMAGE")
        images[pattern] = image
    return images


def entry() -> None:
    """Every mistake of the user's ends in one line and exit code 1."""
    try:
        main(prog_name="mlflow-azure emulator")
    except EmulatorProblem as problem:
        click.echo(f"mlflow-azure emulator: {problem}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    entry()
