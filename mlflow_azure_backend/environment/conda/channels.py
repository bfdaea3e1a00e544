"""Conda channels as users write them: names and addresses, in which a password or a token may hide.

What of a channel is stored, shown or hashed is its public part. The rest goes to rattler by an authentication file that
lives as long as the call (https://rattler.build/latest/authentication_and_upload/).
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_TOKEN: Final = re.compile(r"/t/(?P<token>[^/]+)(?=/)")
_VARIABLE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
ANACONDA: Final = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
"""What conda means by ``defaults`` on other systems than Windows."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a channel's host, in the words of rattler's authentication file.

    Attributes:
        host: The host that they are for, without a port, for so rattler looks for it.
        entry: The file's entry for it.
    """

    host: str
    entry: Mapping[str, Any] = field(repr=False)


def unset_variable(channel: str, environ: Mapping[str, str]) -> str | None:
    """The first variable in an address that is not set; None when all are."""
    names = _VARIABLE.findall(channel) if "://" in channel else []
    return next((name for name in names if name not in environ), None)


def expand_variables(channel: str, environ: Mapping[str, str]) -> str:
    """The address with the values of the variables in it (``https://$USER:$PASSWORD@host/channel``), as conda does."""
    if "://" not in channel:
        return channel
    userinfo_ends = channel.partition("://")[2].partition("/")[0].rfind("@") + channel.index("://") + 3

    def value(match: re.Match[str]) -> str:
        is_secret = match.start() < userinfo_ends or channel[: match.start()].endswith("/t/")
        found = environ.get(match[1], match[0])
        return quote(found, safe="") if is_secret else found

    return _VARIABLE.sub(value, channel)


def split_channel(channel: str) -> tuple[str, Credentials | None]:
    """A channel without what opens it, and that; None when nothing does. A trailing slash goes.

    A name (``conda-forge``, ``conda-forge/label/dev``) is its own public part.
    """
    if "://" not in channel:
        return channel.strip("/"), None
    parts = urlsplit(channel)
    userinfo, at, host = parts.netloc.rpartition("@")
    token = _TOKEN.search(parts.path + "/")
    path = (_TOKEN.sub("", parts.path + "/", count=1) if token else parts.path).rstrip("/")
    public = urlunsplit((parts.scheme, host, path, "", ""))
    if token:
        return public, Credentials(parts.hostname or host, {"CondaToken": unquote(token["token"])})
    if at:
        user, _, password = userinfo.partition(":")
        return public, Credentials(
            parts.hostname or host, {"BasicHTTP": {"username": unquote(user), "password": unquote(password)}}
        )
    return public, None


def public_channel(channel: str) -> str:
    """What may be stored and shown of a channel."""
    return split_channel(channel)[0]


def has_secret(channel: str) -> bool:
    """True when the text itself, and no variable in it, may let somebody in."""
    credentials = split_channel(_VARIABLE.sub("", channel))[1]
    return credentials is not None and any(_values(credentials.entry))


def rattler_config(environ: Mapping[str, str]) -> bytes | None:
    """Rattler's own configuration, of the user's, which says where mirrors of the channels are; None: there is none."""
    file = Path(environ.get("RATTLER_HOME") or Path.home() / ".rattler") / "config.toml"
    return file.read_bytes() if file.is_file() else None


def authentication_entries(credentials: Iterable[Credentials], environ: Mapping[str, str]) -> dict[str, Any]:
    """Rattler's authentication file: what opens the hosts of channels, and what the user's own file holds.

    They are joined, because rattler reads one file only.

    Args:
        credentials: From the addresses of channels.
        environ: Where ``RATTLER_AUTH_FILE`` may stand.

    Returns:
        An entry for each host; empty when no address has credentials, for then rattler finds the user's file itself.
    """
    entries = {one.host: one.entry for one in credentials}
    own = Path(environ.get("RATTLER_AUTH_FILE") or "/nowhere")
    return {**json.loads(own.read_text(encoding="utf-8")), **entries} if entries and own.is_file() else entries


@contextlib.contextmanager
def authentication(
    credentials: Iterable[Credentials], environ: Mapping[str, str]
) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """How a process of rattler's learns of credentials: variables for it, and descriptors that it must inherit.

    A file without a name, so that nothing is left of it however we end.

    Args:
        credentials: From the addresses of channels.
        environ: Where ``RATTLER_AUTH_FILE`` may stand.
    """
    entries = authentication_entries(credentials, environ)
    if not entries:
        yield {}, ()
        return
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(entries).encode("utf-8"))
        file.flush()
        yield {"RATTLER_AUTH_FILE": f"/dev/fd/{file.fileno()}"}, (file.fileno(),)


def _values(entry: Mapping[str, Any]) -> Iterable[str]:
    for value in entry.values():
        if isinstance(value, str):
            yield value
        else:
            yield from _values(value)
