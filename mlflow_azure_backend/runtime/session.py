"""A workspace, and the way to it: what all doors of MLflow stand on, outside of jobs and inside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from .clouds import PUBLIC, cloud_of_host
from .host_token import token_of_host
from .reference import MalformedReference, WorkspaceReference, from_tracking_uri, from_variables
from .run_token import own_run, token_given
from .tokens import TokenSource
from .transport import Transport

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_known: dict[tuple[WorkspaceReference, object], Session] = {}


@dataclass(frozen=True)
class Session:
    """One workspace and connections to its services. May be used from several threads.

    Attributes:
        reference: The workspace; its host is known.
        transport: To its own services, with the tokens that they take.
    """

    reference: WorkspaceReference
    transport: Transport


def session_given(reference: WorkspaceReference, environ: Mapping[str, str]) -> Session | None:
    """The session with the token that the environment gives, as in an Azure ML job; None when it gives none.

    Args:
        reference: The workspace, its host known.
        environ: The process's variables.
    """
    tokens = token_given(reference, environ)
    if tokens is None:
        return None
    who = own_run(environ) or environ.get("MLFLOW_TRACKING_TOKEN")
    return shared_session(reference, ("given", who), lambda: tokens)


def shared_session(reference: WorkspaceReference, who: object, tokens: Callable[[], TokenSource]) -> Session:
    """The one session of this process with a workspace.

    Args:
        reference: The workspace, its host known.
        who: What tells one identity from another.
        tokens: Makes the source of tokens when there is no such session yet.
    """
    with _lock:
        if (reference, who) not in _known:
            _known[reference, who] = Session(reference, Transport(tokens(), tell=_logger.warning))
        return _known[reference, who]


def session_in_job(uri: str, environ: Mapping[str, str]) -> Session:
    """The session of a job's own code.

    Args:
        uri: A tracking or an artifact URI of ``azureml``; what names no workspace means the job's own.
        environ: The job's variables.

    Raises:
        MalformedReference: Nothing names a workspace, or there is no token to ask it with.
    """
    reference = reference_in_job(uri, environ)
    session = session_given(reference, environ)
    if session is None:
        tokens = token_of_host(cloud_of_host(str(reference.host)) or PUBLIC, environ)
        if tokens is not None:
            return shared_session(reference, "host", lambda: tokens)
        raise MalformedReference(
            "this job has no token for the workspace (MLFLOW_TRACKING_TOKEN); "
            "to sign in instead, add mlflow-azure-backend to the project's environment"
        )
    return session


def reference_in_job(uri: str, environ: Mapping[str, str]) -> WorkspaceReference:
    """The workspace that a URI names, else the one that the job runs in.

    Raises:
        MalformedReference: Nothing names one.
    """
    for named in (uri, environ.get("MLFLOW_TRACKING_URI", "")):
        if urlsplit(named).netloc:
            return from_tracking_uri(named)
    reference, host = from_variables(environ), urlsplit(environ.get("AZUREML_SERVICE_ENDPOINT", "")).netloc
    if reference is None or not host:
        raise MalformedReference(f"{uri!r} names no workspace, and no variable of a job does")
    return from_tracking_uri(replace(reference, host=host).tracking_uri)
