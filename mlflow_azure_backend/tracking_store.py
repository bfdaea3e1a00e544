"""How a tracking store is talked to: found, asked in bounded time, and its refusals said in one line."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent import futures
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from mlflow import MlflowClient

from mlflow_azure_backend.errors import TrackingError
from mlflow_azure_backend.job import TrackingContext
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.runtime.reference import MalformedReference, WorkspaceReference, from_tracking_uri
from mlflow_azure_backend.workspace.finding import SHORT_URIS

T = TypeVar("T")

DEFAULT_EXPERIMENT: Final = "0"
"""The id of the experiment that every MLflow store has from its start."""

_HERE: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PASSWORDS: Final = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_CONNECT_SECONDS: Final = 5.0
_TIMEOUT_SECONDS: Final = 10
_RETRIES: Final = 2
_SILENCES: Final = 4
"""For how many times the time-out of a silent server one is waited for that says something now and then."""
_SLOWEST: Final = 64 * 1024
"""Bytes a second that must be moved."""
_HURRY_SECONDS: Final = 0.8
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
"""On the monotonic clock: when nobody waits for a store any more; None for as usual."""


def absolute_tracking_uri(uri: str, folder: Path) -> str:
    """The same store seen from any folder: relative sqlite and file paths are taken from ``folder``.

    ``azureml://`` alone becomes the whole URI of the workspace that it means there.

    Raises:
        WorkspaceError: It means none, or Azure does not say where it is.
    """
    if uri in SHORT_URIS:
        from mlflow_azure_backend.workspace.reaching import reach

        return reach(uri, folder, os.environ).reference.tracking_uri
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        path = uri.removeprefix("sqlite:///")
        return uri if path in ("", ":memory:") else f"sqlite:///{(folder / path).resolve()}"
    scheme = urlsplit(uri).scheme
    if scheme == "file" and not urlsplit(uri).path.startswith("/"):
        return (folder / uri.removeprefix("file:")).resolve().as_uri()
    if not scheme and uri != "databricks":
        return (folder / uri).resolve().as_uri()
    return uri


def is_workspace(uri: str, workspace: WorkspaceReference) -> bool:
    """Whether a tracking URI means that Azure ML workspace."""
    if not uri.startswith("azureml:"):
        return False
    try:
        named = from_tracking_uri(uri)
    except MalformedReference:
        return True  # the short form, by which the workspace was found
    return named.arm_id.lower() == workspace.arm_id.lower()


def is_open_server(uri: str, environ: Mapping[str, str]) -> bool:
    """Whether a job on another machine can report to a tracking store: a server that is elsewhere and asks no password.

    A password would have to stand in the job's definition, where everybody who may see the job could read it.
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or address.hostname in _HERE or address.username is not None:
        return False
    return not any(environ.get(name) for name in _PASSWORDS)


def experiment_name_of(tracking: TrackingContext) -> str:
    """The name of an experiment that is known by its id.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    if tracking.experiment_name is not None:
        return tracking.experiment_name
    with store_errors(tracking.uri):
        return str(client_of(tracking.uri).get_experiment(str(tracking.experiment_id)).name)


def check_reachable(uri: str) -> None:
    """Make sure that somebody listens at a tracking server's address, and that a workspace's URI names a workspace.

    Raises:
        TrackingError: Nobody does, or it names none. Other kinds of store are not asked.
    """
    address = urlsplit(uri)
    if address.scheme == "azureml" and uri not in SHORT_URIS:
        try:
            from_tracking_uri(uri)
        except MalformedReference as error:
            raise TrackingError(str(error), where="MLFLOW_TRACKING_URI") from None
    if address.scheme not in ("http", "https"):
        return
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    if _is_proxied(address.scheme, host):
        return
    try:
        socket.create_connection((host, port), timeout=_at_most(_CONNECT_SECONDS)).close()
    except OSError as error:
        raise TrackingError(
            f"the tracking server cannot be reached ({error.strerror or error})",
            where=without_credentials(uri),
            next_step="start it, or set MLFLOW_TRACKING_URI to one that runs",
        ) from error


def check_store(uri: str) -> None:
    """Ask the store for something small.

    Raises:
        TrackingError: It cannot be reached or refuses.
    """
    check_reachable(uri)
    with store_errors(uri):
        client_of(uri).search_experiments(max_results=1)


def with_experiment(tracking: TrackingContext) -> TrackingContext:
    """Look the experiment up by its name; one that does not exist is created, as ``mlflow run`` does.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    if tracking.experiment_id is not None:
        return tracking
    if tracking.experiment_name is None:
        return replace(tracking, experiment_id=DEFAULT_EXPERIMENT)
    check_reachable(tracking.uri)
    client = client_of(tracking.uri)
    with store_errors(tracking.uri):
        found = client.get_experiment_by_name(tracking.experiment_name)
        experiment_id = client.create_experiment(tracking.experiment_name) if found is None else found.experiment_id
    return replace(tracking, experiment_id=str(experiment_id))


@contextlib.contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Turn whatever a tracking store or an artifact store raises into one line, in bounded time."""
    try:
        with limited(retries=_RETRIES):
            yield
    except TrackingError:
        raise
    except Exception as error:  # the stores' own kinds are countless: sqlalchemy's, requests', boto's, azure's
        reason = str(error).strip().splitlines()
        raise TrackingError(
            f"the tracking store refused: {reason[0] if reason else type(error).__name__}",
            where=without_credentials(uri),
            next_step="`mlflow-azure doctor` tests the store",
        ) from error


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """While the block lasts, this thread's calls to a server end within a second in all: somebody leaves."""
    token = _deadline.set(time.monotonic() + _HURRY_SECONDS)
    try:
        yield
    finally:
        _deadline.reset(token)


def _at_most(seconds: float) -> float:
    """``seconds``, or what is left of them to somebody in a hurry; never 0, which sockets take for something else."""
    deadline = _deadline.get()
    return seconds if deadline is None else max(0.001, min(seconds, deadline - time.monotonic()))


def client_of(uri: str, *, size: int = 0) -> MlflowClient:
    """A client of the store at ``uri``, ``bounded``."""
    return bounded(MlflowClient(tracking_uri=uri), uri, size=size)


def bounded(client: T, uri: str, *, size: int = 0) -> T:
    """The same client, but each of its calls ends in bounded time when ``uri`` is a server's.

    A server that sends a byte now and then lets no read time out, and nothing ends such a read from outside. So each
    call has a thread of its own, which is left behind when the answer is not whole in the time of four silences.

    Args:
        client: A client of a tracking or an artifact store.
        uri: The tracking store's.
        size: How many bytes a call moves, for which it has more time.
    """
    if urlsplit(uri).scheme not in ("http", "https"):
        return client
    return cast(T, _Bounded(client, size / _SLOWEST))


class _Bounded:
    """See ``bounded``."""

    def __init__(self, client: object, extra_seconds: float) -> None:
        self._client = client
        self._extra_seconds = extra_seconds

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return partial(self._call, attribute) if callable(attribute) else attribute

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        outcome: futures.Future[Any] = futures.Future()

        def call() -> None:
            try:
                outcome.set_result(method(*arguments, **options))
            except BaseException as error:
                outcome.set_exception(error)

        seconds = _at_most(_SILENCES * _transport.timeout + self._extra_seconds)
        threading.Thread(target=call, name="mlflow-azure-store", daemon=True).start()
        try:
            return outcome.result(seconds)
        except futures.TimeoutError:
            if outcome.done():
                raise
            raise TimeoutError(f"no whole answer within {max(1, seconds):.0f} s") from None


class _Transport:
    """MLflow's HTTP transport, held to less patience than its own: a store that is away must not hold the user.

    Of itself it asks 8 times and waits 120 s for each answer, and then some. Its only switches are environment
    variables, so they are set while any of our threads talks to a store; a user's smaller number stands.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._asked: list[int] = []
        self._before: dict[str, str | None] = {}

    @contextlib.contextmanager
    def limited(self, *, retries: int) -> Iterator[None]:
        """While the block lasts: no answer is waited for longer than ``_TIMEOUT_SECONDS``, and so many retries."""
        with self._guard:
            if not self._asked:
                self._before = {name: os.environ.get(name) for name in _SWITCHES}
            self._asked.append(retries)
            self._set()
        try:
            yield
        finally:
            with self._guard:
                self._asked.remove(retries)
                self._set()

    @property
    def timeout(self) -> int:
        """Seconds that a silent server is waited for."""
        own = os.environ.get(_SWITCHES[0], "")
        return min(int(own), _TIMEOUT_SECONDS) if own.isdecimal() else _TIMEOUT_SECONDS

    def outside(self) -> dict[str, str]:
        """The environment as it is when nobody talks to a store: what a job inherits."""
        with self._guard:
            environ = dict(os.environ)
            for name, value in self._before.items() if self._asked else ():
                _assign(environ, name, value)
        return environ

    def _set(self) -> None:
        limits = (_TIMEOUT_SECONDS, min(self._asked, default=0))
        for name, limit in zip(_SWITCHES, limits, strict=True):
            own = self._before[name]
            smaller = own is not None and own.isdecimal() and int(own) < limit
            _assign(os.environ, name, own if smaller or not self._asked else str(limit))


_SWITCHES: Final = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
_transport = _Transport()
inherited_environment = _transport.outside
limited = _transport.limited


def _assign(environ: MutableMapping[str, str], name: str, value: str | None) -> None:
    if value is None:
        environ.pop(name, None)
    else:
        environ[name] = value


def _is_proxied(scheme: str, host: str) -> bool:
    from urllib.request import getproxies, proxy_bypass

    return scheme in getproxies() and not proxy_bypass(host)
