"""Commands that begin with a project: ``run``, ``rerun``, and ``plan``, which only looks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from mlflow_azure_backend.cli.commands import follow, leave, loading_mlflow, say_json
from mlflow_azure_backend.compute import target_for
from mlflow_azure_backend.config import read_config_argument
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.planning import Order

F = TypeVar("F", bound=Callable[..., Any])


def _project_options(command: F) -> F:
    """The options of ``mlflow run`` that say what is to be run."""
    for option in reversed(
        [
            click.argument("uri"),
            click.option("--entry-point", "-e", default="main", show_default=True, help="Entry point, or a script."),
            click.option("--version", "-v", help="Branch, tag or commit of a git project."),
            click.option("--param", "-P", "params", multiple=True, metavar="NAME=VALUE", help="A parameter."),
            click.option("--compute", help="Where to run; the same as the key `compute` of the configuration."),
            click.option("--backend-config", "-c", metavar="FILE|JSON", help="JSON or YAML file, or JSON."),
            click.option(
                "--env-manager",
                type=click.Choice(["local", "virtualenv", "uv", "conda"]),
                help="As for `mlflow run`; `local` is the current interpreter.",
            ),
            click.option("--storage-dir", envvar="MLFLOW_TMP_DIR", help="Where remote `path` parameters go."),
            click.option(
                "--docker-args", "-A", multiple=True, metavar="NAME=VALUE", help="An argument of `docker run`."
            ),
            click.option("--build-image", is_flag=True, help="Bake the project into the image of a docker project."),
        ]
    ):
        command = option(command)
    return command


@click.command()
@_project_options
@click.option("--experiment-name", envvar="MLFLOW_EXPERIMENT_NAME", help="Experiment; made if it does not exist.")
@click.option("--experiment-id", envvar="MLFLOW_EXPERIMENT_ID", help="Experiment, by its id.")
@click.option("--run-name", help="The run's name.")
@click.option("--detach", is_flag=True, help="Return once the job is submitted.")
@click.option("--json", "as_json", is_flag=True, help="Say the run's id, status and exit code as JSON at the end.")
def run(
    experiment_name: str | None,
    experiment_id: str | None,
    run_name: str | None,
    detach: bool,
    as_json: bool,
    **project: Any,
) -> None:
    """Run a project, show its log, and exit with its exit code.

    \b
    Example: mlflow-azure run . -P alpha=0.3
    """
    if experiment_name and experiment_id:
        raise click.UsageError("give only one of --experiment-name and --experiment-id")
    order = _order(**project, detach=detach)
    with loading_mlflow():
        from mlflow_azure_backend.launching import launch_here, watching

    with watching():
        submitted = launch_here(
            order, Console(), experiment_name=experiment_name, experiment_id=experiment_id, run_name=run_name
        )
        if not submitted.is_detached:
            follow(submitted)
    leave(submitted.folder, as_json=as_json, has_ended=not submitted.is_detached)


@click.command("rerun")
@click.argument("run")
@click.option("--param", "-P", "params", multiple=True, metavar="NAME=VALUE", help="In place of a recorded one.")
@click.option("--compute", help="Where to run; by default where the recorded run ran.")
@click.option("--run-name", help="The new run's name.")
@click.option("--detach", is_flag=True, help="Return once the job is submitted.")
@click.option("--json", "as_json", is_flag=True, help="Say the run's id, status and exit code as JSON at the end.")
def rerun_run(
    run: str, params: Sequence[str], compute: str | None, run_name: str | None, detach: bool, as_json: bool
) -> None:
    """Repeat a recorded run from its snapshot, environment lock and parameters, also on another machine.

    \b
    Example: mlflow-azure rerun 4f2a9c1e -P alpha=0.5
    """
    changed = _pairs(params, "-P")
    with loading_mlflow():
        from mlflow_azure_backend.launching import watching
        from mlflow_azure_backend.rerun import Changes, rerun

    with watching():
        submitted = rerun(run, Changes(changed, compute, run_name, detach), Console())
        if not submitted.is_detached:
            follow(submitted)
    leave(submitted.folder, as_json=as_json, has_ended=not submitted.is_detached)


@click.command()
@_project_options
@click.option("--json", "as_json", is_flag=True, help="The whole request as JSON.")
def plan(as_json: bool, **project: Any) -> None:
    """Say what a run would do, and do nothing.

    \b
    Example: mlflow-azure plan . -P alpha=0.3
    """
    from mlflow_azure_backend.planning import Silence, describe, plan_job

    console = Console()
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        story = Silence() if as_json else console
        order = _order(**project)
        request = plan_job(order, order.submission_id(), Path(folder) / "checkout", os.environ, story)
        target = target_for(request)
        target.check(request.config, request.options)
        job = target.plan(request)
        if as_json:
            say_json({**describe(request), "job": job})
            return
        for note in request.notes:
            console.note(note)
        console.detail("compute", request.target)
        console.detail("folder", str(request.source.folder))
        console.detail("command", request.command)
        if job is not None:
            import yaml

            console.plain(yaml.safe_dump(dict(job), sort_keys=False, allow_unicode=True, width=120).rstrip())


def _order(
    *,
    uri: str,
    entry_point: str,
    version: str | None,
    params: Sequence[str],
    compute: str | None,
    backend_config: str | None,
    env_manager: str | None,
    storage_dir: str | None,
    docker_args: Sequence[str],
    build_image: bool,
    detach: bool = False,
) -> Order:
    config = {} if backend_config is None else read_config_argument(backend_config)
    config |= {} if compute is None else {"compute": compute}
    config |= {"detach": True} if detach else {}
    mlflow_keys = {
        "ENV_MANAGER": env_manager,
        "SYNCHRONOUS": True,
        "DOCKER_ARGS": _pairs(docker_args, "-A", flag=True),
        "STORAGE_DIR": storage_dir,
        "build_image": build_image,
        "docker_auth": None,
    }
    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    return Order(uri, entry_point, version, _pairs(params, "-P"), {**config, **mlflow_keys}, Path.cwd(), tracking)


def _pairs(texts: Sequence[str], option: str, *, flag: bool = False) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not (equals or flag):
            raise click.UsageError(f"{option} takes NAME=VALUE, got {text!r}")
        if name in pairs:
            raise click.UsageError(f"{option} gives {name!r} twice")
        pairs[name] = value if equals else True
    return pairs
