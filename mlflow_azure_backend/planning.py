"""From what the user typed to a frozen ``JobRequest``: what ``mlflow-azure plan`` prints and every run begins with."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from mlflow_azure_backend.config import BackendConfig, Environment, LoadedConfig, TargetName, Workspace, load_config
from mlflow_azure_backend.environment import image_lock
from mlflow_azure_backend.environment.carried import carried_lock
from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.environment.reporting import notes_on_reporting, with_mlflow
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import EnvironmentSpec, read_environment
from mlflow_azure_backend.environment.store import find_prefix
from mlflow_azure_backend.errors import EnvironmentUnavailable, SnapshotError
from mlflow_azure_backend.inputs import with_places
from mlflow_azure_backend.job import JobRequest, new_submission_id
from mlflow_azure_backend.journal import cache_home
from mlflow_azure_backend.preflight import Finding, Site, local_site, look_ahead, refuse
from mlflow_azure_backend.project import (
    Argument,
    EntryPoint,
    ProjectSpec,
    bind_parameters,
    find_entry_point,
    load_project,
    render_command,
)
from mlflow_azure_backend.repeats import Repeat
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.snapshot import LeftOut, Snapshot, SnapshotRules, take_snapshot
from mlflow_azure_backend.source import ProjectSource, fetch_project
from mlflow_azure_backend.workspace.finding import find_workspace

_SHOWN: Final = 4
"""How many things that were left out are named."""
_PLACES: Final = {"local": "this machine", "docker": "a container on this machine"}
_ALWAYS: Final = "built-in: "
"""How the rules begin that hold for every project."""
_THOUSAND: Final = 1000
_TWO_DIGITS: Final = 10


class PhaseLine(Protocol):
    """Where a phase says what it is doing and what came of it."""

    summary: str
    details: list[tuple[str, str]]

    def progress(self, text: str) -> None:
        """Say what a slow step is doing now."""


class Story(Protocol):
    """Whoever is told of the phases, timed by ``with``."""

    def header(self, where: str, /) -> None:
        """Say where the job is going to run."""

    def phase(self, name: str, /) -> AbstractContextManager[PhaseLine]:
        """Begin a phase; its end is the end of the block."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for, as MLflow hands it to a backend.

    Attributes:
        uri: The project: a folder, a git URL with ``#subdirectory``, or a zip file.
        entry_point: Name of an entry point, or a script.
        version: A branch, tag or commit; None for the project as it is.
        parameters: The parameters that were given.
        backend_config: The backend configuration with MLflow's own keys in it, unparsed.
        client_folder: The folder that relative paths are taken from.
        tracking_uri: Where the snapshot will be stored; None when that is not known yet.
        repeats: The run that is to be repeated; None for an order of its own.
        current: The environment that ``current`` means; None for this interpreter.
    """

    uri: str
    entry_point: str
    version: str | None
    parameters: Mapping[str, Any]
    backend_config: Mapping[str, Any]
    client_folder: Path
    tracking_uri: str | None = None
    repeats: Repeat | None = None
    current: EnvironmentLock | None = None

    def submission_id(self) -> str:
        """The idempotency key: the caller's own, else a new one at each call."""
        asked = self.backend_config.get("submission_id")
        return asked if isinstance(asked, str) and asked else new_submission_id()


def plan_job(order: Order, submission_id: str, checkout: Path, environ: Mapping[str, str], story: Story) -> JobRequest:
    """Decide everything that can be decided before anything is done.

    Args:
        order: What the user asked for.
        submission_id: The idempotency key of the job to be.
        checkout: Where a project from git or a zip file may be copied to.
        environ: The client's environment variables.
        story: Told of the phases.

    Raises:
        BackendError: A mistake of the user's, with its next step.
    """
    cache = cache_home(environ)
    with story.phase("snapshot") as line:
        source, loaded = _project_and_config(order, checkout, environ)
        project = load_project(source.folder)
        target = target_of(loaded, project)
        loaded = loaded.for_target(target)
        story.header(_PLACES.get(target) or str(loaded.config.compute))
        entry_point = find_entry_point(project, order.entry_point)
        arguments = bind_parameters(
            entry_point,
            order.parameters,
            client_folder=order.client_folder if order.repeats is None else source.folder,
            project_folder=source.folder,
        )
        loaded = replace(loaded, config=with_places(loaded.config, arguments, order.client_folder))
        leaves_machine = target == "cluster" or _is_elsewhere(order.tracking_uri)
        snapshot = _snapshot(order, source, loaded.config, cache / "snapshots", leaves_machine=leaves_machine)
        line.summary = f"{counted(len(snapshot.files), 'file')}, {in_bytes(snapshot.size)}  {snapshot.content_hash[:7]}"
        if snapshot.left_out:
            line.details.append(("left out", _left_out(snapshot.left_out)))
    with story.phase("environment") as line:
        wanted = wanted_environment(project, loaded, target, snapshot)
        foreseen = _look_ahead(order, entry_point, arguments, snapshot, wanted, loaded.config, target, environ, project)
        refuse(foreseen)
        file = _environment_file(project, wanted)
        carried = carried_lock(wanted) if order.repeats is None else None
        environment = (carried and carried.lock) or _environment(order, project, wanted, target, cache, line)
        line.summary = _environment_text(environment, project, cache)
    return JobRequest(
        submission_id=submission_id,
        target=target,
        source=source,
        entry_point=entry_point,
        arguments=arguments,
        command=render_command(entry_point, arguments),
        snapshot=snapshot,
        environment=environment,
        environment_file=file,
        config=loaded.config,
        options=loaded.mlflow,
        notes=(
            *_notes(source, loaded, project, arguments, wanted),
            *map(str, foreseen),
            *_notes_on_repeat(order, loaded.config, environment),
            *(() if carried is None else (carried.note,)),
            *notes_on_reporting(environment, wanted, file=file, tracking_uri=order.tracking_uri),
            *(_notes_on_container(loaded) if target == "docker" else ()),
        ),
        docker=project.environment.docker,
        workspace=_workspace(order, loaded.config, environ) if target == "cluster" else None,
    )


def _workspace(order: Order, config: BackendConfig, environ: Mapping[str, str]) -> WorkspaceReference:
    configured = config.workspace.model_dump() if isinstance(config.workspace, Workspace) else config.workspace
    uri = order.tracking_uri if order.tracking_uri is not None else environ.get("MLFLOW_TRACKING_URI")
    return find_workspace(configured, uri, order.client_folder, environ)


class Silence:
    """A story that nobody hears."""

    def header(self, _where: str) -> None:
        """Nothing is said."""

    @contextlib.contextmanager
    def phase(self, _name: str) -> Iterator[PhaseLine]:
        """Time passes, and nothing is said."""
        yield _Unheard()


@dataclass
class _Unheard:
    summary: str = ""
    details: list[tuple[str, str]] = field(default_factory=list)

    def progress(self, text: str) -> None:
        """Nobody hears it."""


def describe(request: JobRequest) -> dict[str, Any]:
    """The request as JSON can say it: what ``mlflow-azure plan --json`` prints. Secrets are ``***``."""
    git = request.source.git
    return {
        "target": request.target,
        "project": request.source.uri,
        "folder": str(request.source.folder),
        "git": None if git is None else asdict(git),
        "entry_point": request.entry_point.name,
        "command": request.command,
        "parameters": {argument.name: argument.logged for argument in request.arguments},
        "snapshot": request.snapshot.manifest(),
        "environment": {
            "kind": request.environment.kind,
            "key": request.environment.key,
            "python": request.environment.python_version,
            "packages": {package.name: package.version for package in request.environment.packages},
        },
        "image": _image(request),
        "config": request.config.model_dump(mode="json", exclude_unset=True),
        "notes": list(request.notes),
    }


def _image(request: JobRequest) -> dict[str, Any] | None:
    """The container's image; None for jobs without a container, and for one that is built from the environment."""
    if request.environment.image is None:
        return None
    return {"name": request.environment.image, "content": image_lock.content_of(request.environment)}


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_bytes(size: float) -> str:
    """A size in decimal units: ``38 KB``."""
    unit, *larger = "bytes", "KB", "MB", "GB"
    while size >= _THOUSAND and larger:
        size, unit = size / _THOUSAND, larger.pop(0)
    return f"{size:.0f} {unit}" if size >= _TWO_DIGITS or unit == "bytes" else f"{size:.1f} {unit}"


def _project_and_config(order: Order, checkout: Path, environ: Mapping[str, str]) -> tuple[ProjectSource, LoadedConfig]:
    """The project's files, and the configuration; that of a repetition knows no defaults of this machine's."""
    if order.repeats is not None:
        source = order.repeats.fetch_project(checkout)
        return source, load_config(order.backend_config, project_folder=None, environ={})
    source = fetch_project(order.uri, order.version, checkout)
    return source, load_config(order.backend_config, project_folder=source.folder, environ=environ)


def _snapshot(
    order: Order, source: ProjectSource, config: BackendConfig, cache: Path, *, leaves_machine: bool
) -> Snapshot:
    rules = _snapshot_rules(config)
    snapshot = take_snapshot(source.folder, rules, cache=cache, leaves_machine=leaves_machine)
    if order.repeats is None or snapshot.content_hash == order.repeats.order.content_hash:
        return snapshot
    # What was in the snapshot against an ignore file, because git tracked it, is no git's any more once it is unpacked.
    brought_back = tuple(
        f"/{_as_pattern(item.path)}{'**' if item.path.endswith('/') else ''}" for item in snapshot.left_out
    )
    rules = replace(rules, include=(*rules.include, *brought_back))
    snapshot = take_snapshot(source.folder, rules, cache=cache, leaves_machine=leaves_machine)
    if snapshot.content_hash != order.repeats.order.content_hash:
        raise SnapshotError("the files are not those of the run that is repeated", where=source.uri)
    return snapshot


def _as_pattern(path: str) -> str:
    """A path as a line of a ``.gitignore`` that means only it."""
    return re.sub(r"([\\*?\[\] !#])", r"\\\1", path)


def _environment(
    order: Order, project: ProjectSpec, wanted: EnvironmentSpec, target: TargetName, cache: Path, line: PhaseLine
) -> EnvironmentLock:
    if order.repeats is not None:
        return order.repeats.lock_for(wanted)
    if wanted.image is not None and target == "cluster":
        return image_lock.image_lock(wanted.image, None)  # what this machine has of it is nothing to a node
    if wanted.image is not None and not _is_built(project):  # else its name says what is in it
        from mlflow_azure_backend.containers.images import find_image

        found = find_image(wanted.image)
        return image_lock.image_lock(wanted.image, None if found is None else found.identity)
    if wanted.kind == "current" and order.current is not None:
        return order.current
    return resolve(wanted, cache=cache, on_progress=line.progress)


def _look_ahead(
    order: Order,
    entry_point: EntryPoint,
    arguments: tuple[Argument, ...],
    snapshot: Snapshot,
    wanted: EnvironmentSpec,
    config: BackendConfig,
    target: str,
    environ: Mapping[str, str],
    project: ProjectSpec,
) -> tuple[Finding, ...]:
    """What is wrong with the run already. A repetition has run before, and has another Python than is known here."""
    if order.repeats is not None:
        return ()
    is_here = target == "local"
    site = Site(project.folder.absolute(), None if is_here and config.workdir != "snapshot" else snapshot, is_here)
    if is_here and order.current is None:
        site = local_site(site.folder, site.snapshot, wanted, environ, config.environment_variables)
    return look_ahead(entry_point, arguments, site, environment_file=_environment_file(project, wanted))


def _notes_on_repeat(order: Order, config: BackendConfig, environment: EnvironmentLock) -> Iterator[str]:
    if order.repeats is None:
        return
    if note := order.repeats.note_on(environment):
        yield note
    yield from (f"input '{name}' reads {item.path} as it is now" for name, item in config.inputs.items())


def _notes_on_container(loaded: LoadedConfig) -> Iterator[str]:
    from mlflow_azure_backend.containers.arguments import notes_on

    yield from notes_on(loaded.mlflow.docker_args, loaded.config.resources.docker_args)


def _is_elsewhere(tracking_uri: str | None) -> bool:
    """Whether a tracking store is on another machine; databases and folders count as here."""
    address = urlsplit(tracking_uri or "")
    return address.scheme not in ("", "file", "sqlite") and address.hostname not in ("localhost", "127.0.0.1", "::1")


def _left_out(left_out: tuple[LeftOut, ...]) -> str:
    """What the user may miss, by name and rule; what is always left out, by its kind only."""
    told = [item for item in left_out if not item.rule.startswith(_ALWAYS)]
    texts = [f"{item.path} ({item.rule})" for item in told[:_SHOWN]]
    if len(told) > _SHOWN:
        texts.append(f"{len(told) - _SHOWN} more")
    kinds = sorted({item.rule.removeprefix(_ALWAYS) for item in left_out if item.rule.startswith(_ALWAYS)})
    if kinds:
        texts.append(f"as always: {', '.join(kinds)}")
    return ", ".join(texts)


def _is_built(project: ProjectSpec) -> bool:
    return project.environment.docker is not None and project.environment.docker.build_context is not None


def _environment_text(environment: EnvironmentLock, project: ProjectSpec, cache: Path) -> str:
    if environment.image is not None and project.environment.docker is not None and _is_built(project):
        return f"image of {project.environment.docker.dockerfile}  {environment.image.rpartition(':')[2][:7]}"
    if environment.image is not None and environment.image.startswith("azureml:"):
        return f"{environment.image}, as the workspace has it"
    if environment.image is not None:
        here = image_lock.content_of(environment) is not None
        return f"image {environment.image}, {'here' if here else 'to be pulled'}"
    version = environment.python_version
    python = "no python" if version is None else f"python {'.'.join(version.split('.')[:2])}"
    state = "cached" if find_prefix(environment, cache=cache) is not None else "to be built"
    if environment.kind == "current":
        state = "this interpreter"
    return f"{python}, {counted(len(environment.packages), 'package')}, {state}"


def target_of(loaded: LoadedConfig, project: ProjectSpec) -> TargetName:
    """Where it runs: a project that brings an image runs in a container unless the user says otherwise."""
    config = loaded.config
    chosen = {"compute", "environment"} & config.model_fields_set
    return "docker" if project.environment.docker is not None and not chosen else config.target


def wanted_environment(
    project: ProjectSpec, loaded: LoadedConfig, target: TargetName, snapshot: Snapshot | None = None
) -> EnvironmentSpec:
    """What the project declares, with what the configuration changes in it.

    Args:
        project: The project.
        loaded: The configuration.
        target: Where it will run.
        snapshot: The files that a project's own image is built from; None when nobody is going to run it.

    Raises:
        EnvironmentUnavailable: It cannot be had there.
        ProjectError: It names a Dockerfile that the snapshot does not hold.
    """
    asked, docker = loaded.config.environment, project.environment.docker
    if isinstance(asked, str) and asked.startswith("azureml:"):
        return EnvironmentSpec("image", project.folder, image=asked)  # the workspace knows what is in it
    made = asked if isinstance(asked, Environment) else Environment()
    image = made.image if docker is None else docker.image
    if target == "docker" and docker is not None and docker.build_context is not None and snapshot is not None:
        from mlflow_azure_backend.containers.dockerfiles import image_name

        image = image_name(snapshot, docker)
    if target == "cluster" and _is_built(project):
        raise EnvironmentUnavailable(
            "a project's own Dockerfile is not built for a cluster yet",
            where="docker_env",
            next_step="build and push it, and name the image",
        )
    wanted = read_environment(
        project.environment.kind.value,
        project.environment.path,
        folder=project.folder,
        env_manager=loaded.mlflow.env_manager,
        current=loaded.config.environment == "current",
        in_container=target != "local",
        image=image,
        channels=made.channels,
        virtual_packages=made.virtual_packages,
        solver=made.solver,
    )
    return with_mlflow(wanted) if made.inject_mlflow else wanted


def _environment_file(project: ProjectSpec, wanted: EnvironmentSpec) -> str | None:
    if wanted.kind == "current" or project.environment.path is None:
        return None
    return project.environment.path.name


def _snapshot_rules(config: BackendConfig) -> SnapshotRules:
    block = config.snapshot
    given = {name: getattr(block, name) for name in block.model_fields_set}
    return SnapshotRules(**given)


def _notes(
    source: ProjectSource,
    loaded: LoadedConfig,
    project: ProjectSpec,
    arguments: tuple[Argument, ...],
    wanted: EnvironmentSpec,
) -> Iterator[str]:
    if source.git_note is not None:
        yield source.git_note
    yield from loaded.notes
    yield from (str(note) for note in project.notes)
    yield from (str(argument.note) for argument in arguments if argument.note is not None)
    yield from wanted.notes
    asked = loaded.config.environment
    if isinstance(asked, Environment) and wanted.conda is None:
        for name in sorted({"channels", "virtual_packages", "solver"} & asked.model_fields_set):
            yield f"environment.{name} is not used: the job does not run in an environment of conda's"
