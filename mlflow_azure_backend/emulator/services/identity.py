"""The identity service (Microsoft Entra ID, "AAD") as far as a service principal with a secret needs it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

from mlflow_azure_backend.emulator.azure_errors import AzureError
from mlflow_azure_backend.emulator.call import Answer, Call
from mlflow_azure_backend.emulator.routing import LOGIN, Known, Service

service = Service("Microsoft Entra ID", host=LOGIN)

_SOURCE = "Microsoft identity platform documentation; azure-identity and msal as they ask"


def _endpoints(tenant: str) -> dict[str, Any]:
    base = f"https://{LOGIN}/{tenant}"
    return {
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
        "issuer": f"{base}/v2.0",
        "jwks_uri": f"{base}/discovery/v2.0/keys",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "tenant_region_scope": "EU",
        "cloud_instance_name": "microsoftonline.com",
    }


@service.operation("Discovery_Instance", "GET", "/common/discovery/instance", known=Known.SPECIFIED, source=_SOURCE)
async def discovery(_: Call) -> Answer:
    """Which names the cloud has."""
    aliases = [LOGIN, "login.windows.net", "login.microsoft.com", "sts.windows.net"]
    return Answer(
        {
            "tenant_discovery_endpoint": f"https://{LOGIN}/common/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [{"preferred_network": LOGIN, "preferred_cache": "login.windows.net", "aliases": aliases}],
        }
    )


@service.operation(
    "OpenIdConfiguration_Get",
    "GET",
    "/{tenant}/v2.0/.well-known/openid-configuration",
    known=Known.SPECIFIED,
    source=_SOURCE,
)
async def configuration(call: Call) -> Answer:
    """Where a tenant's endpoints are."""
    _check_tenant(call)
    return Answer(_endpoints(call.path["tenant"]))


@service.operation(
    "Token_Issue", "POST", "/{tenant}/oauth2/v2.0/token", known=Known.SPECIFIED, source=_SOURCE, raw=True
)
async def token(call: Call) -> Answer:
    """A token for a client secret."""
    _check_tenant(call)
    form = {name: values[-1] for name, values in parse_qs((await call.request.read()).decode()).items()}
    settings = call.world.settings
    if form.get("grant_type") != "client_credentials":
        grant = form.get("grant_type", "none")
        raise _refused("unsupported_grant_type", f"AADSTS70003: The app requested an unsupported grant type '{grant}'.")
    if form.get("client_id") != settings.client_id:
        raise _refused(
            "unauthorized_client",
            f"AADSTS700016: Application with identifier '{form.get('client_id')}' was not found in the directory "
            f"'{settings.tenant_id}'.",
        )
    if form.get("client_secret") != settings.client_secret:
        raise _refused(
            "invalid_client",
            f"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client "
            f"secret value, not the client secret ID, for a secret added to app '{settings.client_id}'.",
            401,
        )
    scope = form.get("scope", "")
    if not scope.endswith("/.default"):
        raise _refused("invalid_scope", f"AADSTS1002012: The provided value for scope {scope} is not valid.")
    lifetime = timedelta(seconds=settings.token_lifetime)
    text, _ = call.world.tokens.issue(
        scope.removesuffix("/.default").rstrip("/"),
        lifetime,
        appid=settings.client_id,
        oid=settings.client_id,
        sub=settings.client_id,
    )
    seconds = int(settings.token_lifetime)
    return Answer({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": text})


def _check_tenant(call: Call) -> None:
    settings = call.world.settings
    if call.path["tenant"] not in {settings.tenant_id, "common", "organizations"}:
        raise _refused(
            "invalid_request",
            f"AADSTS90002: Tenant '{call.path['tenant']}' not found. Check to make sure you have the correct tenant ID "
            "and are signing into the correct cloud.",
        )


def _refused(error: str, description: str, status: int = 400) -> AzureError:
    code = int(description.removeprefix("AADSTS").partition(":")[0])
    return AzureError(status, {"error": error, "error_description": description, "error_codes": [code]})
