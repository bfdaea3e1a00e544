"""The token of a run's own code, inside a job of the workspace, which has no other identity.

The service renews it for whoever bears it while it is good, so a thread renews it in time, however long the code says
nothing. Source: azureml-mlflow 1.62, ``azureml_token_authentication.py``.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from .reference import WorkspaceReference
from .refusals import ServiceError
from .tokens import NoToken, RenewedToken, TokenSource
from .transport import Transport

_TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - the variable's name
_AZURE_TOKEN = "AZUREML_RUN_TOKEN"  # noqa: S105 - the variable's name
_AZURE_TOKEN_ENDS = "AZUREML_RUN_TOKEN_EXPIRY"  # noqa: S105 - the variable's name
_FOR_EVER = float("inf")


def token_given(reference: WorkspaceReference, environ: Mapping[str, str]) -> TokenSource | None:
    """The token that the environment gives to this process; None when it gives none, and one must sign in.

    Args:
        reference: The workspace, its host known.
        environ: The process's variables.
    """
    token = environ.get(_TOKEN) or environ.get(_AZURE_TOKEN)
    if not token or not _is_of(reference, environ):
        return None
    run = own_run(environ)
    experiment = environ.get("MLFLOW_EXPERIMENT_ID") or environ.get("AZUREML_EXPERIMENT_ID")
    name = environ.get("MLFLOW_EXPERIMENT_NAME") or environ.get("AZUREML_ARM_PROJECT_NAME")
    if run is None or not (experiment or name):
        return _FixedToken(token)
    place = f"experimentids/{quote(experiment, '')}" if experiment else f"experiments/{quote(str(name), '')}"
    address = f"{reference.service('history/v1.0')}/{place}/runs/{quote(run, '')}/token"
    return RunToken(token, _end_of(token, environ), address)


def own_run(environ: Mapping[str, str]) -> str | None:
    """The id of the run that this process carries out in a job of a workspace; None outside of one."""
    return environ.get("AZUREML_RUN_ID") or (environ.get("MLFLOW_RUN_ID") if _TOKEN in environ else None) or None


class RunToken(RenewedToken):
    """A run's token, and its renewal for as long as this process lives.

    A renewed token replaces the one in this process's environment, for the processes that it starts.

    Args:
        token: The present one.
        ends: When it ends, in seconds of ``time.time``.
        address: Where it is renewed.
        again: Seconds after which a renewal that failed is tried again.
    """

    def __init__(self, token: str, ends: float, address: str, *, again: float = 60.0) -> None:
        super().__init__(self._fetch_new)
        self._text, self._ends = token, ends
        self._address = address
        self._again = again
        self._transport = Transport(_Bearing(self), patience=30)
        self._keeper: threading.Thread | None = None

    def token(self, *, refused: str | None = None) -> str:
        """A token that is good now.

        Raises:
            NoToken: It has ended, or the service does not renew it.
        """
        if self._keeper is None and self._ends < _FOR_EVER:
            self._keeper = threading.Thread(target=self._keep, name="mlflow-azure-run-token", daemon=True)
            self._keeper.start()
        return super().token(refused=refused)

    def _fetch_new(self) -> tuple[str, float]:
        try:
            told = self._transport.json("GET", self._address)
            token, ends = str(told["token"]), _seconds(told.get("expiryTimeUtc") or told.get("expiry_time_utc"))
        except ServiceError as error:
            raise NoToken(f"the run's own token has ended and is not renewed ({error.what})") from None
        except (TypeError, KeyError):
            raise NoToken("the run's own token is not renewed: the service's answer has none") from None
        for name in (_TOKEN, _AZURE_TOKEN):
            if os.environ.get(name) == self._text:
                os.environ[name] = token
        if _AZURE_TOKEN_ENDS in os.environ:
            os.environ[_AZURE_TOKEN_ENDS] = str(int(ends))
        return token, ends

    def _keep(self) -> None:
        """Ask for the token just before its end, again and again: asking renews it."""
        while True:
            left = self.renewed_at - time.time()
            time.sleep(max(self._again, left))
            try:
                super().token()
            except NoToken:
                return  # whoever asks the next time is told


class _Bearing(TokenSource):
    """The present token as it is, for the request that renews it."""

    def __init__(self, kept: RunToken) -> None:
        self._kept = kept

    def token(self, *, refused: str | None = None) -> str:
        if refused is not None:
            raise NoToken("the service refuses it")
        return str(self._kept._text)


class _FixedToken(TokenSource):
    """A token that somebody put into the environment; nobody renews it."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, *, refused: str | None = None) -> str:
        if refused is not None:
            raise NoToken(f"the token in {_TOKEN} is refused, or has ended; set a new one, or unset it to sign in")
        return self._token


def _is_of(reference: WorkspaceReference, environ: Mapping[str, str]) -> bool:
    """Whether the environment's token is for this workspace: a job may look into another one, with other rights."""
    own = (environ.get("AZUREML_ARM_SUBSCRIPTION"), environ.get("AZUREML_ARM_WORKSPACE_NAME"))
    asked = (reference.subscription_id, reference.workspace_name)
    return not all(own) or [str(one).lower() for one in own] == [one.lower() for one in asked]


def _end_of(token: str, environ: Mapping[str, str]) -> float:
    """When a token ends: a JWT says it, or the variable beside it; never, when neither does."""
    try:
        body = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        pass
    try:
        return _seconds(environ.get(_AZURE_TOKEN_ENDS))
    except ValueError:
        return _FOR_EVER


def _seconds(moment: Any) -> float:
    """A moment as ``time.time`` has it, from seconds or from Azure's ISO dates, whose fractions have seven digits."""
    text = str(moment)
    try:
        return float(text)
    except ValueError:
        whole = text.replace("Z", "")[:19]
        return datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
