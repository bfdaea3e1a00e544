"""Where in the storage account data is that a job names: paths of datastores, assets, addresses of blobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from mlflow_azure_backend.emulator.execution.ends import Refused
from mlflow_azure_backend.emulator.storage import ARTIFACTS

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.world import World

_ASSET = re.compile(r".*/(?P<kind>codes|environments|data|models)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$", re.I)
_SHORT = re.compile(r"azureml:(?P<name>[^/:@]+)(:(?P<version>[^/:@]+)|@latest)$")
_DATASTORE = re.compile(r"azureml://(.*/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)$", re.I)
_ARTIFACT = re.compile(r"azureml://artifacts/(?P<path>.+)$", re.I)
_OUTPUT = re.compile(r"azureml://jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(/paths/(?P<path>.*))?$", re.I)


class Place(NamedTuple):
    """A blob, or all blobs below a folder."""

    container: str
    path: str
    """Without slashes at its ends."""


def asset_properties(world: World, identity: str, kind: str) -> dict[str, Any]:
    """The properties of a registered asset.

    Args:
        world: Has the assets.
        identity: An ARM id, an id ``azureml://locations/…``, ``azureml:NAME:VERSION`` or ``azureml:NAME@latest``.
        kind: ``codes``, ``environments``, ``data`` or ``models``, for the short forms.

    Raises:
        Refused: There is none.
    """
    asset = None
    if found := _SHORT.match(identity):
        versions = [one for _, one in world.state.items(kind, f"{found['name']}/{found['version'] or ''}")]
        exact = [one for one in versions if found["version"] in {None, one["name"]}]
        asset = exact[-1] if exact else None
    elif found := _ASSET.match(identity):
        asset = world.state.get(found["kind"].lower(), f"{found['name']}/{found['version']}")
    if asset is None:
        raise Refused(f"{identity}: there is no such asset in this workspace; register it, or give its definition")
    return dict(asset["properties"])


def address_of(world: World, uri: str, kind: str = "data") -> str:
    """The address that an asset stands for; other addresses stand for themselves.

    Args:
        world: Has the assets.
        uri: As a job names it.
        kind: ``data`` or ``models``, for the short forms.

    Raises:
        Refused: There is no such asset.
    """
    if _SHORT.match(uri) or (_ASSET.match(uri) and not _DATASTORE.match(uri) and not uri.startswith("http")):
        properties = asset_properties(world, uri, kind)
        return str(properties.get("dataUri") or properties["modelUri"])
    return uri


def blob_place(address: str) -> Place:
    """The blobs of an ``https`` address whose characters stand for themselves, as a code's does."""
    container, _, path = address.partition("://")[2].partition("/")[2].partition("/")
    return Place(container, path.strip("/"))


def place_of(world: World, uri: str) -> Place:
    """The blobs that an address stands for.

    Raises:
        Refused: They are not in the workspace's storage account.
    """
    containers = world.storage.datastores
    if (found := _DATASTORE.match(uri)) and found["store"] in containers:
        return Place(containers[found["store"]], found["path"].strip("/"))
    if found := _ARTIFACT.match(uri):
        return Place(ARTIFACTS, found["path"].strip("/"))
    if found := _OUTPUT.match(uri):
        path = (found["path"] or "").strip("/")
        if found["output"] in {"artifacts", "default"}:
            return Place(ARTIFACTS, f"ExperimentRun/dcid.{found['job']}/{path}".strip("/"))
        return Place(world.storage.blobstore, f"azureml/{found['job']}/{found['output']}/{path}".strip("/"))
    scheme, _, rest = uri.partition("?")[0].partition("://")
    host, _, path = rest.partition("/")
    if scheme == "https" and host == world.settings.blob_host:
        return blob_place(unquote(uri.partition("?")[0]))
    if scheme == "wasbs" and host.partition("@")[2] == world.settings.blob_host:
        return Place(host.partition("@")[0], unquote(path).strip("/"))
    raise Refused(
        f"{uri}: data is read from and written to the workspace's own storage account; "
        f"there are the datastores {' and '.join(containers)}, and {world.settings.blob_host}"
    )
