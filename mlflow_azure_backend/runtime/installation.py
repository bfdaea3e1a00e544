"""An environment from its lock on a job's node: by uv and py-rattler, which pip fetches where the image lacks them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .node import CannotRun, run
from .order import LockedEnvironment

_OLDEST_FOR_RATTLER = (3, 10)
_REDIRECTING = frozenset(
    {
        *("CONDA_DEFAULT_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"),
        *("UV_BREAK_SYSTEM_PACKAGES", "UV_NO_VERIFY_HASHES", "UV_PYTHON", "UV_SYSTEM_PYTHON"),
        *("UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "UV_VENV_RELOCATABLE", "UV_VENV_SEED"),
    }
)
"""Settings that would make uv act on another environment; all others (indexes, certificates) are the job's."""
_NETWORK = re.compile(
    r"error sending request|Failed to fetch|dns error|name resolution|timed out|onnection refused|tunnel|"
    r"NewConnectionError|Max retries|Could not connect|NetworkError|No matching distribution|unreachable",
    re.IGNORECASE,
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NO_EGRESS = (
    "this node does not reach what it needs: let it reach the package index and the conda channels, name mirrors of "
    'them in the job\'s variables (UV_DEFAULT_INDEX, PIP_INDEX_URL), or set "environment": {"build": "image"}'
)
_OTHER = 'look at the lock, or set "environment": {"build": "image"}'
_SECRETS = (
    (re.compile(r"(?<=://)[^/@\s]*@"), ""),
    (re.compile(r"(\w+://[^\s?]+)\?[^\s'\"`)]+"), r"\1"),
    (re.compile(r"/t/[^/\s]+/"), "/t/***/"),
)
"""What may let somebody in, in addresses that tools repeat; and what is shown instead."""
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Installation:
    """One installation.

    Attributes:
        order: What to install.
        files: The folder that came with the job: the runtime's zip, the lock, index options, rattler's configuration.
        node: The node's folder.
        held: The descriptor of the lock that the installers hold on when we are killed.
        environ: The job's variables.
    """

    order: LockedEnvironment
    files: Path
    node: Path
    held: int
    environ: Mapping[str, str]

    def install(self, prefix: Path) -> None:
        """Install into a folder that is not there.

        Raises:
            CannotRun: It cannot be installed; what is in the folder then must not be used.
        """
        if self.order.kind == "conda" and sys.version_info < _OLDEST_FOR_RATTLER:
            raise CannotRun(
                "conda packages are installed by py-rattler, which needs Python 3.10, and this image's python3 is "
                f"{sys.version_info[0]}.{sys.version_info[1]}; name another image"
            )
        tools = self._tools()
        environ = self._environment(tools)
        if self.order.kind == "conda":
            module = f"{__package__}.installing"
            argv = [sys.executable, "-W", "ignore", "-m", module, str(self.files / self.order.lock), str(prefix)]
            path = os.pathsep.join(str(part) for part in (tools, self.files / "runtime.zip") if part is not None)
            self._run("installing", argv, {**environ, "PYTHONPATH": path}, self._index_options())
            return
        uv = _uv(tools)
        # A Python that uv has to fetch lies in the prefix, so that it is kept with it.
        making = {**environ, "UV_PYTHON_INSTALL_DIR": str(prefix / ".python")}
        create = [uv, "venv", str(prefix), "--python", self._python(), "--no-project", "--allow-existing", "--quiet"]
        fetch = f"name an image that has Python {self.order.python}, or let the node reach github.com, where uv gets it"
        self._run(f"making an environment of Python {self.order.python}", create, making, "", step=fetch)
        lock = (self.files / self.order.lock).read_text(encoding="utf-8")
        if re.search(r"^[^#\s-]", lock, flags=re.MULTILINE):
            sync = [uv, "pip", "sync", "-", "--python", str(prefix / "bin/python"), "--quiet"]
            sync += [] if " @ git+" in lock else ["--require-hashes"]
            self._run("installing", sync, environ, self._index_options() + lock)

    def _python(self) -> str:
        """The Python of a virtual environment, in uv's words: this one if it will do."""
        here = "{}.{}".format(*sys.version_info[:2])
        if (self.order.implementation, self.order.python) == (sys.implementation.name, here):
            return sys.executable
        return f"{self.order.implementation}@{self.order.python}"

    def _run(
        self, doing: str, argv: list[str], environ: Mapping[str, str], text: str, *, step: str | None = None
    ) -> None:
        try:
            code, said = run(argv, environ=environ, cwd=self.node, text=text, held=self.held)
        except OSError as error:
            raise CannotRun(f"{argv[0]} cannot be started: {error.strerror}") from None
        if code != 0:
            step = step or (_NO_EGRESS if _NETWORK.search(said) else _OTHER)
            raise CannotRun(f"{doing} failed: {_reason(said)}; {step}")

    def _index_options(self) -> str:
        """The lines of ``indexes.txt``; ``file:wheels`` there is a folder of the project's."""
        file = self.files / "indexes.txt"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        project = quote(str(self.files.parent))
        return re.sub(r"(?<=[ =])file:(?!/)", lambda _: f"file://{project}/", text)

    def _environment(self, tools: Path | None) -> dict[str, str]:
        """The tools' variables: the job's without what would redirect them."""
        kept = {name: value for name, value in self.environ.items() if name not in _REDIRECTING}
        mirrors = {"RATTLER_HOME": str(self.files)} if (self.files / "config.toml").is_file() else {}
        return {
            "UV_CACHE_DIR": str(self.node / "uv"),
            "RATTLER_CACHE_DIR": str(self.node / "rattler"),
            **mirrors,
            **self.order.variables,
            **kept,
            **({} if tools is None else {"PYTHONPATH": str(tools)}),
            "UV_NO_PROGRESS": "1",
            "UV_PROJECT": "/",
            "NO_COLOR": "1",
        }

    def _tools(self) -> Path | None:
        """A folder with the installers; None: this Python has those very versions."""
        wanted = sorted(f"{name}=={version}" for name, version in self.order.installers.items())
        if all(_version(name) == version for name, version in self.order.installers.items()):
            return None
        tag = hashlib.sha256(repr((wanted, sys.version_info[:2])).encode()).hexdigest()[:12]
        folder = self.node / f"tools-{tag}"
        if not folder.is_dir():
            making = self.node / f"tools-{tag}.new"
            shutil.rmtree(str(making), ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
            environ = {
                **self._environment(None),
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PIP_NO_INPUT": "1",
                "PIP_ROOT_USER_ACTION": "ignore",
            }
            environ.setdefault("PIP_RETRIES", "2")
            self._run(f"getting {' and '.join(wanted)}", [*pip, "--target", str(making), *wanted], environ, "")
            making.rename(folder)
        return folder


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _uv(tools: Path | None) -> str:
    if tools is not None:
        return str(tools / "bin/uv")
    from uv import find_uv_bin

    return str(find_uv_bin())


def _reason(said: str) -> str:
    """A tool's own words in one line, without credentials."""
    lines = [line.strip(" \u00d7│╰─▶├") for line in _ANSI.sub("", said).splitlines()]
    words = [line for line in lines if line and not line.startswith(("WARNING:", "warning:", "[notice]"))]
    text = " ".join(words) or "it did not say why"
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    text = (text[len("error: ") :] if text.startswith("error: ") else text).rstrip(". ")
    return text if len(text) <= _LONGEST_REASON else "…" + text[-_LONGEST_REASON:]
