"""Blobs behind signed addresses (SAS): one request each. Bigger files: ``uploads`` and ``downloads``.

Source: the REST API of Azure Blob Storage, https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import requests

from .refusals import ServiceError, route_of
from .transport import Transport

VERSION = "2021-12-02"
"""Of the storage service's API; the signature's own may be another."""
_EXISTS = frozenset({409, 412})
_NOT_THERE = 404
_PAST_THE_END = 416


class SignedAddress:
    """The address of a blob, or of a container, with a signature that ends. May be used from several threads.

    Args:
        url: As the service gave it.
        renew: Gets another when this one is refused; raises ``ServiceError``. None: there is no other.
    """

    def __init__(self, url: str, renew: Callable[[], str] | None = None) -> None:
        self._url = url
        self._renew = renew
        self._lock = threading.Lock()

    def url(self, *, refused: str | None = None) -> str:
        """The address with a signature that may be good; the same one again where there is no other.

        Args:
            refused: What this gave before and the storage has just refused.

        Raises:
            ServiceError: The service gives no other.
        """
        with self._lock:
            if refused is not None and self._renew is not None and _signature(refused) == _signature(self._url):
                self._url = self._renew()
            return self._url

    @property
    def renewable(self) -> bool:
        """Whether there may be another one."""
        return self._renew is not None

    def within(self, name: str) -> SignedAddress:
        """The blob ``name`` of this container, by the container's signature."""
        return _Within(self, name)


class _Within(SignedAddress):
    def __init__(self, container: SignedAddress, name: str) -> None:
        self._container = container
        self._name = quote(name, safe="/~")

    @property
    def renewable(self) -> bool:
        return self._container.renewable

    def url(self, *, refused: str | None = None) -> str:
        address = urlsplit(self._container.url(refused=refused))
        return address._replace(path=f"{address.path.rstrip('/')}/{self._name}").geturl()


class Blob(NamedTuple):
    """One of a listing.

    Attributes:
        name: In its container.
        size: Bytes.
    """

    name: str
    size: int


def ask(transport: Transport, address: SignedAddress, method: str, **request: Any) -> requests.Response:
    """A request as in ``Transport.send``; a signature that is refused is renewed once.

    Raises:
        ServiceError: Refused, or no answer in time.
    """
    url = address.url()
    request["headers"] = {"x-ms-version": VERSION, **request.get("headers", {})}
    try:
        return transport.send(method, url, **request)
    except ServiceError as problem:
        if problem.status != 403:
            raise
        if not address.renewable:
            raise _locked_out(problem) from None
        renewed = address.url(refused=url)
    try:
        return transport.send(method, renewed, **request)
    except ServiceError as problem:
        raise (_locked_out(problem) if problem.status == 403 else problem) from None


def put_bytes(
    transport: Transport,
    address: SignedAddress,
    data: bytes,
    *,
    overwrite: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> bool:
    """Write a blob in one request, its content checked by the service.

    Args:
        transport: Without tokens.
        address: Of the blob.
        data: Its content.
        overwrite: False: leave a blob of that name as it is.
        metadata: Of the blob; None: none.

    Returns:
        False when there was one that had to be left.

    Raises:
        ServiceError: Refused, or no answer in time.
    """
    headers = {"x-ms-blob-type": "BlockBlob", "Content-MD5": digest(data), **conditions(overwrite, metadata)}
    return was_written(lambda: ask(transport, address, "PUT", data=data, headers=headers), overwrite)


def put_metadata(transport: Transport, address: SignedAddress, metadata: Mapping[str, str]) -> None:
    """Replace a blob's metadata.

    Raises:
        ServiceError: Refused, or no answer in time.
    """
    ask(transport, address, "PUT", params={"comp": "metadata"}, headers=conditions(True, metadata))


def read_range(transport: Transport, address: SignedAddress, offset: int, length: int) -> bytes:
    """Bytes ``offset`` up to ``offset + length`` of a blob that may still grow; empty when it is not that long yet.

    Raises:
        ServiceError: Refused, or no answer in time; 404: there is no such blob.
    """
    headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
    response = ask(transport, address, "GET", headers=headers, accept=(_PAST_THE_END,))
    if response.status_code == _PAST_THE_END:
        return b""
    content = response.content
    return content if response.status_code == 206 else content[offset : offset + length]


def size_of(transport: Transport, address: SignedAddress) -> int | None:
    """A blob's size in bytes; None: there is none.

    Raises:
        ServiceError: Refused, or no answer in time.
    """
    response = ask(transport, address, "HEAD", accept=(_NOT_THERE,))
    return None if response.status_code == _NOT_THERE else int(response.headers["Content-Length"])


def list_blobs(transport: Transport, container: SignedAddress, prefix: str = "") -> Iterator[Blob]:
    """The blobs of a container whose name starts with ``prefix``, in the order of their names.

    Raises:
        ServiceError: Refused, or no answer in time, or none that is a listing.
    """
    marker = ""
    while True:
        params = {"restype": "container", "comp": "list", "prefix": prefix, "marker": marker}
        response = ask(transport, container, "GET", params={name: text for name, text in params.items() if text})
        listing = xml(response)
        for blob in listing.iter("Blob"):
            name = blob.find("Name")
            text = "" if name is None else name.text or ""
            encoded = name is not None and name.get("Encoded") == "true"
            yield Blob(unquote(text) if encoded else text, int(blob.findtext("Properties/Content-Length") or 0))
        marker = listing.findtext("NextMarker") or ""
        if not marker:
            return


def xml(response: requests.Response) -> ElementTree.Element:
    """The storage's answer.

    Raises:
        ServiceError: It is no XML.
    """
    try:
        return ElementTree.fromstring(response.content)  # noqa: S314 - expat bounds what entities may grow to
    except ElementTree.ParseError:
        raise ServiceError(
            "the storage's answer is no XML",
            route=route_of(str(response.request.method), str(response.request.url)),
            code="NotXml",
            next_step="something between here and Azure (a proxy, a sign-in page) answers instead",
        ) from None


def digest(data: bytes) -> str:
    """The MD5 of ``data`` as the storage writes it."""
    return encoded(hashlib.md5(data))  # noqa: S324 - the storage's checksum; guards against accidents only


def encoded(checksum: hashlib._Hash) -> str:
    """A checksum as the storage writes it."""
    return base64.b64encode(checksum.digest()).decode()


def conditions(overwrite: bool, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Headers of whatever writes a blob."""
    headers = {f"x-ms-meta-{name}": value for name, value in (metadata or {}).items()}
    if not overwrite:
        headers["If-None-Match"] = "*"
    return headers


def was_written(write: Callable[[], object], overwrite: bool) -> bool:
    """Whether ``write`` wrote; not when there is a blob that must not be overwritten.

    Raises:
        ServiceError: Refused for another reason.
    """
    try:
        write()
    except ServiceError as problem:
        if overwrite or problem.status not in _EXISTS or problem.code not in ("BlobAlreadyExists", "ConditionNotMet"):
            raise
        return False
    return True


def _signature(url: str) -> str:
    return urlsplit(url).query


def _locked_out(problem: ServiceError) -> ServiceError:
    problem.next_step = (
        "the storage account refuses the address that the workspace signed: its firewall or private endpoint may keep "
        "this machine out, or this machine's clock may be off"
    )
    return problem
