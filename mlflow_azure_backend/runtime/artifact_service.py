"""Where a workspace keeps artifacts, and the signed addresses in storage that it hands out for them.

Source: the requests of azureml-mlflow 1.62 (``_restclient/run_artifact``, ``_restclient/artifact``); that it refuses to
make an artifact a second time, and how it is overwritten then, from azureml-core's log streamer, which asks for
``…/write``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from .blobs import SignedAddress
from .parallel import side_by_side
from .reference import MalformedReference, WorkspaceReference
from .refusals import ServiceError, route_of
from .session import Session

_BATCH = 50
"""Artifacts that one request makes, as azureml-mlflow does."""
_RUN_URI = re.compile(
    r"(?P<workspace>azureml://[^/]+/mlflow/v[12]\.0/subscriptions/.+?/workspaces/[^/]+)"
    r"/(?P<kind>experiments|experimentids)/(?P<experiment>[^/]+)/runs/(?P<run>[^/]+)/artifacts(?:/(?P<path>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_CONTAINER_URI = re.compile(
    r"azureml://artifacts/(?P<origin>[^/]+)/(?P<container>[^/]+)(?:/(?P<path>.*))?", re.IGNORECASE | re.DOTALL
)
_JOB_URI = re.compile(
    r"azureml://jobs/(?P<run>[^/]+)/outputs/artifacts(?:/paths)?(?:/(?P<path>.*))?", re.IGNORECASE | re.DOTALL
)
FORMS = (
    "azureml://HOST/mlflow/v2.0/subscriptions/…/experiments/EXPERIMENT/runs/RUN/artifacts[/PATH], "
    "azureml://artifacts/ORIGIN/CONTAINER[/PATH] or azureml://jobs/RUN/outputs/artifacts/paths[/PATH]"
)
"""What an artifact URI looks like."""


@dataclass(frozen=True)
class ArtifactPlace:
    """Where artifacts are in a workspace.

    Attributes:
        origin: Azure's first part of their names, such as ``ExperimentRun`` and ``LocalUpload``.
        container: The second part; ``dcid.RUN`` for those of a run.
        path: What all of them are below; empty: nothing.
        run_route: Where a run's history hands out addresses, below the workspace; None: nothing else does than the
            artifact service.
        workspace: Tracking URI of the workspace; None: the URI does not say which.
    """

    origin: str
    container: str
    path: str
    run_route: str | None = None
    workspace: str | None = None

    @classmethod
    def of(cls, uri: str) -> ArtifactPlace:
        """Read an ``azureml://`` artifact URI, whose path is taken as it stands: MLflow encodes none.

        Raises:
            MalformedReference: It is none; the line says how one looks.
        """
        if (match := _RUN_URI.fullmatch(uri)) is not None:
            experiment, run = (quote(unquote(match.group(name)), "") for name in ("experiment", "run"))
            route = f"{match.group('kind').lower()}/{experiment}/runs/{run}"
            container = f"dcid.{unquote(match.group('run'))}"
            return cls("ExperimentRun", container, _path(match), route, match.group("workspace"))
        if (match := _CONTAINER_URI.fullmatch(uri)) is not None:
            return cls(unquote(match.group("origin")), unquote(match.group("container")), _path(match))
        if (match := _JOB_URI.fullmatch(uri)) is not None:
            return cls("ExperimentRun", f"dcid.{unquote(match.group('run'))}", _path(match))
        raise MalformedReference(f"{uri[:300]!r} is no artifact URI of a workspace; there are {FORMS}")

    def __str__(self) -> str:
        """As a message names it."""
        run = self.container[len("dcid.") :] if self.origin == "ExperimentRun" else None
        return f"{self.origin}/{self.container}" if run is None else f"run {run}"

    def full(self, path: str | None) -> str:
        """The service's name of what is at ``path`` here; None and empty: of all of it."""
        return "/".join(part for part in (self.path, path) if part)

    def relative(self, name: str) -> str:
        """The path here of what the service names ``name``."""
        return name[len(self.path) + 1 :] if self.path else name


class ArtifactService:
    """Hands out signed addresses for artifacts of one place. May be used from several threads.

    Args:
        session: With the workspace.
        place: Where the artifacts are.
    """

    def __init__(self, session: Session, place: ArtifactPlace) -> None:
        self._transport = session.transport
        self._container = _container_base(session.reference, place)
        self._base = self._container
        if place.run_route is not None:
            self._base = f"{session.reference.service('history/v1.0')}/{place.run_route}/artifacts"

    def writable(self, names: Sequence[str]) -> list[SignedAddress]:
        """Where to write artifacts, in the order of their names; those that are there will be overwritten.

        Raises:
            ServiceError: Refused, or no answer in time.
        """
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        return [address for batch in side_by_side(self._made, batches) for address in batch]

    def _made(self, names: Sequence[str]) -> list[SignedAddress]:
        # Made a second time, because an answer was lost or to overwrite it, an artifact is a conflict: see below.
        url = f"{self._base}/batch/metadata"
        asked = {"paths": [{"path": name} for name in names]}
        told = self._transport.json("POST", url, json=asked, idempotent=True) or {}
        known, errors = told.get("artifactContentInformation") or {}, told.get("errors") or {}
        addresses = []
        for name in names:
            if name in known:
                address = str(known[name]["contentUri"])
            elif "already exists" in _message(errors.get(name)):
                address = self._again(name)
            else:
                raise ServiceError(
                    f"the workspace does not take artifact {name!r}: {_message(errors.get(name))}",
                    route=route_of("POST", url),
                    code="NotTaken",
                )
            addresses.append(SignedAddress(address, lambda name=name: self._again(name)))  # type: ignore[misc]
        return addresses

    def _again(self, name: str) -> str:
        """Another address to write an artifact to that was made before."""
        return str(self._transport.json("GET", f"{self._container}/write", params={"path": name})["contentUri"])

    def delete(self, names: Sequence[str]) -> None:
        """Delete artifacts with what they hold.

        Raises:
            ServiceError: Refused, or no answer in time.
        """
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        side_by_side(self._delete, batches)

    def _delete(self, names: Sequence[str]) -> None:
        url = f"{self._container}/batch/metadata:delete"
        body = {"paths": [{"path": name} for name in names]}
        self._transport.send("POST", url, params={"hardDelete": "true"}, json=body, idempotent=True)

    def readable(self, name: str) -> SignedAddress | None:
        """Where to read an artifact; None: there is none of that name.

        Raises:
            ServiceError: Refused, or no answer in time.
        """
        try:
            url = self._content(name)
        except ServiceError as problem:
            if problem.status == 404 and "artifact" in problem.what.lower():
                return None
            raise
        return SignedAddress(url, lambda: self._content(name))

    def _content(self, name: str) -> str:
        return str(self._transport.json("GET", f"{self._base}/contentinfo", params={"path": name})["contentUri"])

    def below(self, name: str) -> Iterator[tuple[str, SignedAddress]]:
        """Names and readable addresses of the artifact ``name`` and of all below it; of all when it is empty.

        Raises:
            ServiceError: Refused, or no answer in time.
        """
        params = {"path": name} if name else {}
        while True:
            told = self._transport.json("GET", f"{self._base}/prefix/contentinfo", params=params) or {}
            for one in told.get("value") or ():
                found = str(one["path"])
                if not name or found == name or found.startswith(f"{name}/"):
                    yield found, self._renewed(found, str(one["contentUri"]))
            token = told.get("continuationToken")
            if not token:
                return
            params["continuationToken"] = str(token)

    def _renewed(self, name: str, url: str) -> SignedAddress:
        return SignedAddress(url, lambda: self._content(name))


def _container_base(reference: WorkspaceReference, place: ArtifactPlace) -> str:
    origin, container = (quote(part, "") for part in (place.origin, place.container))
    return f"{reference.service('artifact/v2.0')}/artifacts/{origin}/{container}"


def _path(match: re.Match[str]) -> str:
    path = str(match.group("path") or "").strip("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise MalformedReference(f"{match.group()[:300]!r} leads out of the artifacts; leave out '.' and '..'")
    return path


def _message(error: Any) -> str:
    """What the service says of one artifact of a batch."""
    told = error.get("error") if isinstance(error, dict) else None
    return str((told or {}).get("message") or "without a word") if isinstance(told, (dict, type(None))) else str(told)
