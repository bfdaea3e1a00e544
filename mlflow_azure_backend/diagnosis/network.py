"""Causes on the wire: the tracking server, other hosts, certificates, credentials, ports."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from mlflow_azure_backend.diagnosis.case import Case, Finding, add_requirement, on_error, set_config, set_parameter
from mlflow_azure_backend.diagnosis.ending import read_source

_MLFLOW_ERRORS: Final = "mlflow.exceptions.MlflowException mlflow.exceptions.RestException"
_CONNECTION_ERRORS: Final = (
    "ConnectionRefusedError socket.gaierror urllib.error.URLError requests.exceptions.ConnectionError"
    " requests.exceptions.SSLError requests.exceptions.ConnectTimeout httpx.ConnectError httpx.ConnectTimeout"
    " aiohttp.client_exceptions.ClientConnectorError aiohttp.client_exceptions.ClientConnectorDNSError"
    " ssl.SSLCertVerificationError azure.core.exceptions.ServiceRequestError"
    " botocore.exceptions.EndpointConnectionError"
)
_REFUSED: Final = r"\[Errno (?:111|61)\]|Connection refused"
_UNRESOLVED: Final = (
    r"Name or service not known|Temporary failure in name resolution|nodename nor servname|No address associated"
    r"|getaddrinfo failed|Failed to resolve"
)
_UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED|certificate verify failed"
_HOST = re.compile(r"host='([^']+)', port=(\d+)|Cannot connect to host ([\w.-]+):(\d+)|Failed to resolve '([^']+)'")
_PORTS: Final = {"http": 80, "https": 443}
_SET_URI = re.compile(r"(?m)^\s*((?:mlflow\.)?set_tracking_uri\(.*\)) *(?:#.*)?$")


@on_error(
    _MLFLOW_ERRORS,
    rf"^API request to (\S+/mlflow/\S+) failed with exception .*?({_REFUSED}|{_UNRESOLVED}|{_UNTRUSTED}|timed out)",
)
def tracking_unreachable(case: Case, found: re.Match[str]) -> Finding:
    """MLflow's client could not reach a tracking server."""
    server = _origin(found[1])
    cause = f"the tracking server {server} cannot be reached: {_why(found[2])}"
    if server == _origin(case.evidence.tracking_uri):
        return Finding(cause, f"try it from there:  curl -sSf {server}/health")
    text = None if case.file is None else read_source(case.evidence.project_folder, case.file)
    own = None if text is None else _SET_URI.search(text)
    if own is None:
        return Finding(f"{cause}; it is not the run's own")
    return Finding(
        f"{cause}; it is not the run's own, which {case.file} overrides", f"delete in {case.file}:  {own[1]}"
    )


@on_error(
    _MLFLOW_ERRORS,
    r"^API request to endpoint (\S+/mlflow/\S+) failed with error code (401|403) "
    r"|^(UNAUTHENTICATED|PERMISSION_DENIED): ",
)
def tracking_refused(case: Case, found: re.Match[str]) -> Finding:
    """The tracking server does not take us for somebody who may."""
    unknown = found[2] == "401" or found[3] == "UNAUTHENTICATED"
    code = "401: it wants credentials" if unknown else "403: these credentials may not do that"
    server = _origin(case.evidence.tracking_uri)
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    fix = f"hand yours to the job:  {set_config('secrets', {name: f'env:{name}' for name in names})}"
    return Finding(f"the tracking server{f' {server}' if server else ''} answers {code}", fix)


@on_error("mlflow.tracking.registry.UnsupportedModelRegistryStoreURIException", r"unsupported URI '(azureml://[^']*)'")
def no_azureml_store(case: Case, _found: re.Match[str]) -> Finding:
    """MLflow knows ``azureml://`` only through a plugin."""
    where = case.evidence.environment
    fix = add_requirement(case.evidence, "mlflow-azure-backend")
    return Finding(f"{where} has no plugin for azureml:// tracking URIs", fix)


@on_error(
    _MLFLOW_ERRORS,
    r"^(?:INVALID_PARAMETER_VALUE: )?Changing param values is not allowed\. Param with key='([^']+)' was already"
    r" logged with value='([^']*)' for run ID='[^']*'\. Attempted logging new value '([^']*)'",
)
def parameter_changed(case: Case, found: re.Match[str]) -> Finding:
    """MLflow keeps a parameter's first value for ever."""
    key, old, new = found.groups()
    first = "by MLproject's own parameter" if case.evidence.parameters.get(key) == old else "earlier in this run"
    cause = f"the parameter {key} was logged as {old!r} {first}, and MLflow refuses the {new!r} of {case.place}"
    return Finding(cause, f"give it another name at {case.place}, such as {key}_used")


@on_error(_MLFLOW_ERRORS, r"^Detected out-of-date database schema \(found version (\w+), but expected (\w+)\)")
def tracking_schema(case: Case, _found: re.Match[str]) -> Finding:
    """The tracking database was made by another version of MLflow than the environment's."""
    uri = case.evidence.tracking_uri
    fix = f"if this MLflow is the newer one, upgrade the database after a backup:  mlflow db upgrade {uri}"
    return Finding("the tracking database was made by another version of MLflow than this environment's", fix)


@on_error(_CONNECTION_ERRORS, rf"({_REFUSED}|{_UNRESOLVED})")
def unreachable_host(case: Case, found: re.Match[str]) -> Finding:
    """The program could not connect to some host."""
    host = _host(case, found.string)
    cause = f"{host or 'a host'} cannot be reached from this machine: {_why(found[1])}"
    scheme = "https" if host is None or ":" not in host else "http"
    return Finding(cause, None if host is None else f"see whether it answers:  curl -sSI {scheme}://{host}")


@on_error(_CONNECTION_ERRORS, _UNTRUSTED)
def untrusted_certificate(case: Case, found: re.Match[str]) -> Finding:
    """TLS refused a certificate."""
    host = _host(case, found.string)
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    variables = {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}
    cause = f"the certificate of {host or 'a host'} is not trusted here: often a proxy's own"
    return Finding(cause, f"trust what the system trusts:  {set_config('environment_variables', variables)}")


@on_error("botocore.exceptions.NoCredentialsError", "^Unable to locate credentials")
def no_aws_credentials(_case: Case, _found: re.Match[str]) -> Finding:
    """Boto found none."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    fix = f"hand yours to the job:  {set_config('secrets', {name: f'env:{name}' for name in names})}"
    return Finding("the job has no AWS credentials", fix)


@on_error(
    "azure.core.exceptions.ClientAuthenticationError azure.identity._exceptions.CredentialUnavailableError",
    "^DefaultAzureCredential failed to retrieve a token|^Please run 'az login'",
)
def no_azure_credentials(_case: Case, _found: re.Match[str]) -> Finding:
    """azure-identity found none."""
    return Finding("the job has no Azure credentials", "az login")


@on_error(
    "OSError RuntimeError torch.distributed.DistNetworkError",
    r"(?i)^\[Errno (?:98|48)\] .*already in use|errno: 98\b|EADDRINUSE",
)
def port_in_use(case: Case, found: re.Match[str]) -> Finding:
    """The kernel's EADDRINUSE."""
    number = re.search(r"\('[^']*', (\d+)\)|:(\d{2,5})\b", found.string)
    ports = [name for name in case.evidence.parameters if re.fullmatch(r"(?:\w+[_-])?port", name)]
    port = (
        next(filter(None, number.groups()))
        if number
        else case.evidence.parameters[ports[0]]
        if len(ports) == 1
        else None
    )
    cause = (
        f"port {port} is taken by another program"
        if port
        else f"the port that {case.place} wants is taken by another program"
    )
    if len(ports) == 1:
        return Finding(cause, f"let the system choose a free one:  {set_parameter(ports[0], '0')}")
    return Finding(cause, f"see who has it:  ss -ltnp 'sport = :{port}'" if port else "see who has it:  ss -ltnp")


def _why(text: str) -> str:
    if re.fullmatch(_REFUSED, text):
        return "nothing listens there"
    if re.fullmatch(_UNRESOLVED, text):
        return "its name cannot be resolved"
    return "its certificate is not trusted" if re.fullmatch(_UNTRUSTED, text) else "no answer in time"


def _origin(url: str) -> str:
    """``https://host:port`` of a URL; empty when it has no host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    if not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname}" + (f":{port}" if port not in (None, _PORTS.get(parts.scheme)) else "")


def _host(case: Case, message: str) -> str | None:
    """``host:port`` or ``host`` that the exception names, or else the one URL that a parameter holds."""
    found = _HOST.search(message)
    if found is not None:
        host, port = found[1] or found[3] or found[5], found[2] or found[4]
        return host if port in (None, "80", "443") else f"{host}:{port}"
    origins = {_origin(value) for value in case.evidence.parameters.values()} - {""}
    return origins.pop().partition("://")[2] if len(origins) == 1 else None
