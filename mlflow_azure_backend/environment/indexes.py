"""Where packages come from: the project's index options over those that this machine has for pip or for uv.

uv does not read pip's configuration, so a user behind a company index would be sent to the public one. pip's are
therefore handed on, unless the user has told uv itself where to look. Addresses may hold credentials; they are kept
out of every ``repr``, fingerprint, lock and message, and reach uv by its standard input and environment only.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow_azure_backend.environment.conda.channels import Credentials

# `ssh://git@host` names an account, not a secret; over https a lone name is often a token.
_USERINFO: Final = re.compile(r"(?<=://)(?<!ssh://)[^/\s'\"`]+@|(?<=ssh://)[^/\s'\"`:]*:[^/\s'\"`]*@")
_QUERY: Final = re.compile(r"(\w+://[^\s?'\"`]+)\?[^\s'\"`]+")
_SECRET: Final = re.compile(r"PASSWORD|USERNAME|TOKEN|AUTH")
_VARIABLE: Final = re.compile(r"\$\{([A-Z0-9_]+)\}")

# uv's settings that change what it resolves; those that are files count with what stands in them.
_INDEXES: Final = (
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
)
_RESOLVING: Final = (
    *_INDEXES,
    "UV_INDEX_STRATEGY",
    "UV_EXCLUDE_NEWER",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_TORCH_BACKEND",
    "UV_NO_BINARY",
    "UV_NO_BUILD",
)
_RESOLVING_FILES: Final = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT")
_INDEX_IN_TOML: Final = re.compile(
    r"^\s*(\[\[(pip\.)?index\]\]|(index|index-url|extra-index-url|find-links|no-index)\s*=)", re.M
)


def redact(text: str) -> str:
    """The text without the credentials in its addresses (``user:password@`` and query strings)."""
    return _QUERY.sub(r"\1?***", _USERINFO.sub("***@", text))


def has_credentials(address: str) -> bool:
    """True when the address may let somebody in: it names a user or has a query string (a storage SAS is one)."""
    return bool(_USERINFO.search(address) or _QUERY.search(address))


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace ``${NAME}`` as pip does: capitals only, and a name that is not set stays as it stands."""
    return _VARIABLE.sub(lambda match: environ.get(match[1], match[0]), text)


@dataclass(frozen=True, slots=True)
class Indexes:
    """Where to look for packages, in pip's words.

    Attributes:
        index_url: The main index; None means pip's and uv's own.
        extra_index_urls: Further indexes, equal to the main one, as pip has it.
        find_links: Addresses, or folders relative to the project's, that hold or list packages.
        no_index: True when only ``find_links`` counts.
        trusted_hosts: Hosts whose certificate is not checked.
    """

    index_url: str | None = field(default=None, repr=False)
    extra_index_urls: tuple[str, ...] = field(default=(), repr=False)
    find_links: tuple[str, ...] = field(default=(), repr=False)
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()

    def over(self, other: Indexes) -> Indexes:
        """Both together, as pip lets a requirements file add to its configuration: one main index, all the others."""
        return Indexes(
            index_url=self.index_url or other.index_url,
            extra_index_urls=_merged(self.extra_index_urls, other.extra_index_urls),
            find_links=_merged(self.find_links, other.find_links),
            no_index=self.no_index or other.no_index,
            trusted_hosts=_merged(self.trusted_hosts, other.trusted_hosts),
        )

    def public(self) -> tuple[str, ...]:
        """The options without credentials: what may be stored and what a fingerprint is made of."""
        lines = list(self._lines(self.find_links))
        lines += [f"--trusted-host {host}" for host in self.trusted_hosts]
        return tuple(_USERINFO.sub("", _QUERY.sub(r"\1", line)) for line in lines)

    def lines(self, folder: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
        """The options as lines of a requirements file for uv, credentials and all: for its standard input only.

        Args:
            folder: What folders in ``find_links`` are relative to.
            environ: Gives ``${NAME}`` in addresses its value.
        """
        # A folder of pip's configuration that is not there is passed over, as pip does; the project's were checked.
        places = (
            place if "://" in place else (folder / place).resolve().as_uri()
            for place in self.find_links
            if "://" in place or (folder / place).exists()
        )
        return tuple(expand(line, environ) for line in self._lines(places))

    def _lines(self, places: Iterator[str] | tuple[str, ...]) -> Iterator[str]:
        if self.no_index:
            yield "--no-index"
        elif self.index_url:
            yield f"--index-url {self.index_url}"
        if not self.no_index:
            yield from (f"--extra-index-url {url}" for url in self.extra_index_urls)
        yield from (f"--find-links {place}" for place in places)


@dataclass(frozen=True, slots=True)
class Sources:
    """How uv is told where packages come from. Credentials may be in both, so neither is ever shown or stored.

    Attributes:
        lines: For its standard input, before the requirements.
        variables: For its environment.
        channels: What opens conda channels.
    """

    lines: tuple[str, ...] = field(default=(), repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    channels: tuple[Credentials, ...] = field(default=(), repr=False)

    def elsewhere(self, project: Path | None = None) -> Sources:
        """What of them is of use on another machine: without this machine's folders and certificates.

        Args:
            project: A folder that will be there, too: what lies in it is named relative to it, as
                ``file:wheels``; None: there is none.
        """
        inside = None if project is None else f"file://{quote(str(project.resolve()))}/"
        lines = (line if inside is None else line.replace(inside, "file:") for line in self.lines)
        variables = {name: value for name, value in self.variables.items() if not name.startswith("SSL_")}
        return Sources(tuple(line for line in lines if "file://" not in line), variables, self.channels)

    @property
    def secret_variables(self) -> dict[str, str]:
        """Those of the variables that may let somebody in."""
        return {name: value for name, value in self.variables.items() if _SECRET.search(name) or has_credentials(value)}


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine's configuration adds to every resolution.

    Attributes:
        indexes: From pip's configuration; empty when uv has one of its own.
        constraints: Constraint files or addresses of pip's configuration.
        best_match: True when several indexes count alike, as for pip; False leaves it to the user's settings of uv.
        variables: What uv gets by environment variable.
        fingerprint: Changes when a setting changes that can change a resolution. Credentials do not count.
    """

    indexes: Indexes
    constraints: tuple[str, ...]
    best_match: bool
    variables: Mapping[str, str] = field(repr=False)
    fingerprint: str

    def sources(self, project: Indexes, *, folder: Path, environ: Mapping[str, str]) -> Sources:
        """The project's indexes over this machine's.

        Args:
            project: What the project's files say.
            folder: What folders there are relative to.
            environ: Gives ``${NAME}`` in addresses its value.
        """
        indexes = project.over(self.indexes)
        hosts = " ".join((*indexes.trusted_hosts, environ.get("UV_INSECURE_HOST", ""))).strip()
        variables = {**self.variables, **({"UV_INSECURE_HOST": hosts} if hosts else {})}
        if self.best_match and indexes.extra_index_urls:
            # pip takes the best version that any index has; uv's own rule stops at the first index that has the name,
            # which breaks the usual `--extra-index-url https://download.pytorch.org/whl/cpu`.
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        return Sources(indexes.lines(folder, environ), variables)


def read_machine(environ: Mapping[str, str]) -> Machine:
    """Read what pip and uv are told on this machine.

    Raises:
        EnvironmentUnavailable: a configuration file of pip's cannot be understood.
    """
    tomls = _uv_files(environ)
    told_uv = any(name in environ for name in _INDEXES) or any(_INDEX_IN_TOML.search(text) for text in tomls)
    pip = _pip_settings(environ)
    indexes = Indexes() if told_uv else _pip_indexes(pip)
    constraints = () if "UV_CONSTRAINT" in environ else _paths(pip.get("constraint", ""))
    variables = {
        name: pip[key]
        for name, key in (
            ("SSL_CERT_FILE", "cert"),
            ("SSL_CLIENT_CERT", "client-cert"),
            ("UV_HTTP_TIMEOUT", "timeout"),
            ("UV_HTTP_TIMEOUT", "default-timeout"),
        )
        if key in pip and name not in environ
    }
    best_match = not told_uv and "UV_INDEX_STRATEGY" not in environ and not any("index-strategy" in t for t in tomls)
    return Machine(indexes, constraints, best_match, variables, _fingerprint(environ, tomls, indexes, constraints))


def _fingerprint(
    environ: Mapping[str, str], tomls: tuple[str, ...], indexes: Indexes, constraints: tuple[str, ...]
) -> str:
    parts = [*indexes.public(), *(_USERINFO.sub("", text) for text in tomls)]
    parts += [f"{name}={_USERINFO.sub('', environ[name])}" for name in _RESOLVING if name in environ]
    files = [*constraints, *(path for name in _RESOLVING_FILES for path in environ.get(name, "").split())]
    parts += [_content(path) for path in files]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return path


def _uv_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The user's and the system's uv.toml, as far as they are there."""
    if environ.get("UV_NO_CONFIG", "").lower() in ("1", "true"):
        return ()
    if named := environ.get("UV_CONFIG_FILE"):
        files = [Path(named)]
    else:
        systems = [*environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep), "/etc"]
        files = [_config_home(environ) / "uv/uv.toml", *(Path(folder) / "uv/uv.toml" for folder in systems)]
    return tuple(_content(str(file)) for file in files if file.is_file())


def _config_home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or "/"
    return Path(environ.get("XDG_CONFIG_HOME") or Path(home) / ".config")


def _pip_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """What pip reads: its files, weakest first: https://pip.pypa.io/en/stable/topics/configuration/."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or "/")
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    for folder in reversed(environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(os.pathsep)):
        yield Path(folder) / "pip/pip.conf"
    yield Path("/etc/pip.conf")
    if named is None or not Path(named).exists():
        yield home / ".pip/pip.conf"
        yield _config_home(environ) / "pip/pip.conf"
        if sys.platform == "darwin":
            yield home / "Library/Application Support/pip/pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if named is not None:
        yield Path(named)


def _pip_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of pip for ``install``: the ``global`` section, then its own, then ``PIP_*``."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in _pip_files(environ):
        if not file.is_file():
            continue
        # Here, because nearly nobody has such a file and the import costs 10 ms.
        import configparser

        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise EnvironmentUnavailable(f"pip's configuration cannot be read: {reason}", where=file) from None
        for section, values in sections.items():
            if parser.has_section(section):
                values.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    named = [name for name, value in environ.items() if name.startswith("PIP_") and value]
    variables = {name[len("PIP_") :].lower().replace("_", "-"): environ[name] for name in named}
    return {**sections["global"], **sections["install"], **variables}


def _pip_indexes(pip: Mapping[str, str]) -> Indexes:
    return Indexes(
        index_url=pip.get("index-url"),
        extra_index_urls=tuple(pip.get("extra-index-url", "").split()),
        find_links=_paths(pip.get("find-links", "")),
        no_index=pip.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        trusted_hosts=tuple(pip.get("trusted-host", "").split()),
    )


def _paths(setting: str) -> tuple[str, ...]:
    """Addresses as they are, paths absolute: pip reads them relative to the folder that it is called in."""
    return tuple(part if "://" in part else str(Path(part).expanduser().absolute()) for part in setting.split())


def _merged(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
