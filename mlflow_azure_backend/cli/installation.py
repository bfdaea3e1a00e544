"""Commands about this installation itself."""

from __future__ import annotations

import os
import sys

import click

from mlflow_azure_backend.cli.commands import say_json
from mlflow_azure_backend.console import Console


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Look at this installation, and say for each fault the one line that mends it.

    \b
    Example: mlflow-azure doctor
    """
    from mlflow_azure_backend.doctor import examine

    findings = list(examine(os.environ))
    if as_json:
        say_json([finding.as_dict() for finding in findings])
    else:
        console = Console()
        for finding in findings:
            console.finding(finding.good, finding.name, finding.found, finding.fix)
    if not all(finding.good for finding in findings):
        sys.exit(1)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulator(arguments: tuple[str, ...]) -> None:
    """Serve an Azure ML workspace on this machine: start, or run one COMMAND against a fresh one.

    `mlflow-azure emulator start --help` and `... run --help` say more; docs/emulator.md says all.

    \b
    Example: mlflow-azure emulator run -- python train.py
    """
    # Another program, which shares nothing with us but HTTP; it takes our place, and with it the terminal's signals.
    program = ["-m", "mlflow_azure_backend.emulator", *(arguments or ["--help"])]
    os.execv(sys.executable, [sys.executable, *program])  # noqa: S606 - no shell is wanted
