"""As whom: azure-identity's credentials, never interactive unless asked for."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.errors import SignInError
from mlflow_azure_backend.runtime.clouds import PUBLIC, Cloud, cloud_named
from mlflow_azure_backend.runtime.tokens import NoToken, RenewedToken

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

LOGIN_VARIABLE: Final = "MLFLOW_AZURE_LOGIN"
"""Asks for an interactive sign-in: ``browser``, or ``device_code`` where there is no browser."""
_NOT_TRIED: Final = ("unavailable", "not found", "not installed", "not be found", "requires the", "is required")
"""In what azure-identity says of a way to sign in that this machine does not have."""
_SIGN_IN: Final = (
    f"sign in: az login (or set the AZURE_* variables of a service principal, or {LOGIN_VARIABLE}=browser)"
)
_DECIDING: Final = (LOGIN_VARIABLE, "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_USERNAME")


def credential(cloud: Cloud, environ: Mapping[str, str]) -> TokenCredential:
    """Whoever this process is to Azure: a service principal, a workload or managed identity, or ``az login``'s user.

    Raises:
        SignInError: ``MLFLOW_AZURE_LOGIN`` asks for a way to sign in that does not exist.
    """
    return _credential(cloud, identity_in(environ))


def identity_in(environ: Mapping[str, str]) -> tuple[str | None, ...]:
    """What of the environment decides who we are: another one there is another sign-in."""
    return tuple(environ.get(name) for name in _DECIDING)


def token_source(cloud: Cloud, environ: Mapping[str, str]) -> RenewedToken:
    """Tokens for Resource Manager and for the workspace's services, which take the same ones."""
    return _token_source(cloud, identity_in(environ))


@lru_cache
def _token_source(cloud: Cloud, identity: tuple[str | None, ...]) -> RenewedToken:
    last: list[str] = []

    def fetch() -> tuple[str, float]:
        from azure.core.exceptions import ClientAuthenticationError

        try:
            token = _credential(cloud, identity).get_token(cloud.scope)
            if token.token in last:  # it keeps what it has until it ends, but the service has refused this one
                _credential.cache_clear()
                token = _credential(cloud, identity).get_token(cloud.scope)
        except ClientAuthenticationError as error:
            raise NoToken(f"Azure gives no token ({_first_line(error.message)}); {_SIGN_IN}") from None
        except SignInError as error:
            raise NoToken(str(error)) from None
        last[:] = [token.token]
        return token.token, float(token.expires_on)

    return RenewedToken(fetch)


@lru_cache
def _credential(cloud: Cloud, identity: tuple[str | None, ...]) -> TokenCredential:
    login = identity[0] or ""
    logging.getLogger("azure").setLevel(logging.ERROR)  # it warns of each way that it tries in vain
    if login == "":
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential(authority=cloud.login)
    if login == "browser":
        from azure.identity import InteractiveBrowserCredential

        return InteractiveBrowserCredential(authority=cloud.login)
    if login == "device_code":
        from azure.identity import DeviceCodeCredential

        return DeviceCodeCredential(authority=cloud.login)
    raise SignInError(f"{login!r} is no way to sign in", where=LOGIN_VARIABLE, next_step="set browser or device_code")


def main(cloud: str) -> None:
    """Print a token, for a job whose environment cannot get one (``runtime/host_token.py``), or why there is none."""
    try:
        source = token_source(cloud_named(cloud) or PUBLIC, os.environ)
        answer: dict[str, object] = {"token": source.token(), "ends": source.renewed_at}
    except NoToken as error:
        answer = {"problem": str(error)}
    sys.stdout.write(json.dumps(answer))


def _first_line(message: str) -> str:
    """The cause in azure-identity's message, which lists what each way to sign in said on a line of its own."""
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    tried = [line for line in lines if re.match(r"\w+Credential: ", line)]
    refused = [line for line in tried if not any(words in line for words in _NOT_TRIED)]
    if tried and not refused:
        return "nobody is signed in, and no variable names an identity"
    return (refused or lines or ["without a word"])[0][:300]
