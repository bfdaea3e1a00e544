"""The ``mlflow-azure`` command line: each command is a few lines over a room that does the work.

MLflow takes seconds to import, so it is imported only by the commands that talk to a tracking store.
"""

from __future__ import annotations

import click

from mlflow_azure_backend import __version__
from mlflow_azure_backend.cli.commands import Commands
from mlflow_azure_backend.cli.environments import env, lock, prune
from mlflow_azure_backend.cli.installation import doctor, emulator
from mlflow_azure_backend.cli.runs import attach, cancel, list_runs, logs, open_run, status, sync_runs
from mlflow_azure_backend.cli.starting import plan, rerun_run, run


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlflow-azure")
def main() -> None:
    """Run MLflow projects, follow them, and look after them."""


for _command in (
    run,
    plan,
    list_runs,
    status,
    logs,
    attach,
    cancel,
    rerun_run,
    sync_runs,
    doctor,
    open_run,
    emulator,
    lock,
    env,
    prune,
):
    main.add_command(_command)
