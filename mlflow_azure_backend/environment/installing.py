"""A ``conda-lock.yml`` becomes a prefix: one file that knows only the lock and a folder.

It stands apart and needs nothing but the standard library, py-rattler and uv, so the same file builds environments on
this machine, in an image and on a cluster's node::

    python installing.py conda-lock.yml /opt/environment < index-options

Standard input may hold index options as a requirements file has them (``--index-url ...``), which may have credentials.
Standard output says what is being done, one stage a line, and ``! ...`` for what the user should know. What goes wrong
is one line on standard error and exit code 1, and what is in the folder then must not be used.

What is installed is what was locked: an archive's sha256 is compared when it is downloaded, every file of rattler's
package cache with its package's own list when it is linked, and every file of a wheel with its ``RECORD``, because uv
links from its cache without looking. Something damaged is fetched again, once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LONGEST_PREFIX = 250
"""Bytes that conda packages leave for the place that they are installed to."""
CACHE_SECONDS = "10"
"""How long uv may wait, to clean its cache, for others of its kind that are at work, unless the user says it."""
_RETRIES = 2
_CHUNK = 1 << 20
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class InstallError(Exception):
    """What could not be installed, and why; one line."""


def main(arguments: list[str] | None = None) -> int:
    """Install as the command line says."""
    parser = argparse.ArgumentParser(description="Install a conda-lock.yml into a prefix, without conda.")
    parser.add_argument("lock", type=Path, help="the conda-lock.yml")
    parser.add_argument("prefix", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--compile", action="store_true", help="compile all modules to bytecode")
    asked = parser.parse_args(arguments)
    options = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    try:
        install(asked.lock, asked.prefix, options, compile_bytecode=asked.compile)
    except InstallError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or asked.prefix}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def install(lock: Path, prefix: Path, index_options: str = "", *, compile_bytecode: bool = False) -> None:
    """Install the packages that a lock has for this platform.

    Args:
        lock: A conda-lock file of version 1.
        prefix: The folder to make. Scripts carry its place, so it is made absolute and must stay where it is.
        index_options: Lines of a requirements file that say where wheels are; empty leaves that to uv's own settings.
        compile_bytecode: Compile all modules, which takes longer than most first runs save.

    Raises:
        InstallError: the lock cannot be read, or a package cannot be had or is not what was locked.
        OSError: the disk refuses.
    """
    prefix = prefix.absolute()
    if len(os.fsencode(prefix)) > LONGEST_PREFIX:
        raise InstallError(
            f"{prefix}: conda packages cannot be installed below a path of more than {LONGEST_PREFIX} bytes"
        )
    records, wheels = _read(lock, index_options)
    _say(f"installing {len(records)} conda packages")
    asyncio.run(_install_records(records, prefix))
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    (prefix / "conda-meta/history").touch()
    if variables := lock_variables(lock.read_text(encoding="utf-8")):
        (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": variables}), encoding="utf-8")
    if unrun := sorted(_link_scripts(prefix)):
        _say(f"! the post-link scripts of {', '.join(unrun)} are not run: they are arbitrary code of the packages")
    if wheels:
        _say(f"installing {len(wheels)} wheels")
        _install_wheels(wheels, prefix, index_options)
    if compile_bytecode and (prefix / "bin/python").exists():
        _say("compiling")
        subprocess.run([prefix / "bin/python", "-m", "compileall", "-q", "-j", "0", prefix / "lib"], check=False)


def _say(text: str) -> None:
    print(text, flush=True)


def _read(lock: Path, index_options: str) -> tuple[list[Any], dict[str, str]]:
    """The conda records of this platform, and a requirement line for each wheel by its canonical name."""
    from rattler import LockFile, Subdir

    try:
        environment = LockFile.from_path(lock).default_environment()
    except Exception as error:  # rattler's errors have no common class that could be imported
        raise InstallError(f"{lock}: no conda-lock file of version 1: {error}") from None
    here = str(Subdir.current())
    platform = next((one for one in environment.platforms() if str(one) == here), None) if environment else None
    if environment is None or platform is None:
        raise InstallError(f"{lock}: it has nothing for {here}")
    wheels = {}
    for package in environment.packages(platform) or ():
        if type(package).__name__ == "PypiLockedPackage":
            hashes = package.hashes
            if hashes is None or hashes.sha256 is None:
                raise InstallError(f"{lock}: it gives no sha256 for {package.name}")
            name = _canonical(str(package.name))
            wheels[name] = f"{_requirement(name, package, index_options)} --hash=sha256:{hashes.sha256.hex()}"
    return environment.conda_repodata_records_for_platform(platform) or [], wheels


def _requirement(name: str, package: Any, index_options: str) -> str:
    """The very file that was locked: asked by name, uv would take the wheel that suits this machine best.

    A file of the project is not where its relative address leads, but in a folder among the index options; one of which
    the lock has no more than the name is asked by its version, and its hash decides.
    """
    parts = urlsplit(str(package.location))
    if parts.scheme != "file" or Path(unquote(parts.path)).is_file():
        return f"{name} @ {package.location}"
    for folder in re.findall(r"^--find-links (file:\S+)$", index_options, flags=re.MULTILINE):
        file = Path(unquote(urlsplit(folder).path)) / unquote(parts.path).rpartition("/")[2]
        if file.is_file():
            return f"{name} @ {file.as_uri()}"
    return f"{name}=={package.version}"


def lock_variables(text: str) -> dict[str, str]:
    """What an activated environment sets, from the text of its lock: JSON in the lock's own metadata."""
    found = re.search(r"^    variables: '(.*)'$", text, flags=re.MULTILINE)
    return json.loads(found[1].replace("''", "'")) if found else {}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


async def _install_records(records: list[Any], prefix: Path) -> None:
    import rattler

    config = rattler.Config.load_from_default_locations("rattler")
    client = rattler.Client.from_config(config, max_retries=_RETRIES)
    with contextlib.ExitStack() as stack:
        if all(record.sha256 for record in records):
            folder = _package_cache()
        else:
            # With no more than an md5 to go by, a file must not stand in the shared cache for one with a sha256.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlflow-azure-packages-")))
        cache = rattler.PackageCache.new_layered([folder], validation_mode=rattler.ValidationMode.full())
        try:
            await rattler.install(
                records, prefix, package_cache=cache, client=client, config=config, show_progress=False
            )
        except Exception as error:  # rattler's errors have no common class that could be imported
            raise InstallError(_reason(error)) from None


def _package_cache() -> Path:
    """Where rattler itself keeps packages: ``$RATTLER_CACHE_DIR/pkgs``, else below the user's cache folder."""
    if folder := os.environ.get("RATTLER_CACHE_DIR"):
        return Path(folder) / "pkgs"
    home = os.environ.get("HOME") or tempfile.gettempdir()
    if sys.platform == "darwin":
        return Path(home) / "Library/Caches/rattler/cache/pkgs"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(home) / ".cache") / "rattler/cache/pkgs"


def _reason(error: Exception) -> str:
    text = re.sub(r"(?<=://)[^/@\s]*@", "", " ".join(str(error).split()))
    text = re.sub(r"/t/[^/\s]+/", "/t/***/", text)
    if "hash mismatch" in text.lower():
        return f"a package is not the one that was locked: {text}"
    return text


def _link_scripts(prefix: Path) -> set[str]:
    """Packages that wanted to run something of their own after they were linked."""
    allowed = _runs_link_scripts()
    found = {} if allowed else {path.name for path in (prefix / "bin").glob(".*-post-link.sh")}
    return {name[1 : -len("-post-link.sh")] for name in found}


def _runs_link_scripts() -> bool:
    from rattler import Config

    return Config.load_from_default_locations("rattler").run_post_link_scripts == "insecure"


def _install_wheels(wheels: dict[str, str], prefix: Path, index_options: str) -> None:
    _uv_install(wheels, prefix, index_options)
    broken = damaged(wheels, prefix)
    if broken:
        # It fails while another uv is at work; nothing is taken from there.
        _uv(["cache", "clean", *broken], "", UV_LOCK_TIMEOUT=os.environ.get("UV_LOCK_TIMEOUT", CACHE_SECONDS))
        again = {name: wheels[name] for name in broken}
        _uv_install(again, prefix, index_options, *fetching_anew(broken))
        for note in notes_on_damage(broken, damaged(again, prefix)):
            _say(f"! {note}")


def _uv_install(wheels: dict[str, str], prefix: Path, index_options: str, *more: str) -> None:
    """From uv's cache alone if it has everything, for then no index is asked."""
    text = index_options + "".join(f"{line}\n" for line in wheels.values())
    command = ["pip", "install", "-r", "-", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--python", str(prefix / "bin/python"), "--break-system-packages", *more]
    if _uv([*command, "--offline"], text).returncode == 0:
        return
    done = _uv(command, text)
    if done.returncode != 0:
        lines = [line.strip(" \u00d7│╰─▶├") for line in _ANSI.sub("", done.stderr).splitlines()]
        text = re.sub(r"(?<=://)[^/@\s]*@", "", " ".join(line for line in lines if line))
        raise InstallError(text.removeprefix("error: ") or "uv failed and did not say why")


def _uv(arguments: list[str], text: str, **variables: str) -> subprocess.CompletedProcess[str]:
    import uv

    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PYTHON")
    }
    environ = {**kept, "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT": "/", **variables}
    command = [uv.find_uv_bin(), *arguments, "--quiet"]
    return subprocess.run(
        command, input=text, env=environ, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


def damaged(names: Collection[str], prefix: Path) -> list[str]:
    """Which wheels have a file that is missing or not what their ``RECORD`` says.

    Args:
        names: Canonical names of the wheels that were installed.
        prefix: A conda prefix or a virtual environment.
    """
    folders = prefix.glob("lib/*/site-packages/*.dist-info")
    mine = [(_canonical(path.name.split("-", 1)[0]), path) for path in folders]
    jobs = [(name, folder) for name, folder in mine if name in names]
    missing = set(names) - {name for name, _ in jobs}
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to others
        whole = pool.map(lambda job: _is_whole(job[1]), jobs)
        return sorted(missing | {name for (name, _), is_whole in zip(jobs, whole, strict=True) if not is_whole})


def fetching_anew(names: list[str]) -> list[str]:
    """The options by which uv installs wheels from their archives, whatever its cache has."""
    return ["--no-cache", *(f"--reinstall-package={name}" for name in names)]


def notes_on_damage(before: list[str], after: list[str]) -> Iterator[str]:
    """What the user is told of damaged wheels: those before uv has unpacked their archives anew, and those after.

    An archive is compared with its locked sha256 when it is fetched, so what is still damaged was made like that.
    """
    if mended := [name for name in before if name not in after]:
        yield f"the files of {', '.join(mended)} in uv's cache were damaged, and are fetched anew"
    if after:
        yield f"{', '.join(after)}: the wheel has other files than it lists; it is the one that was locked"


def _is_whole(folder: Path) -> bool:
    try:
        with (folder / "RECORD").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        return all(_digest(folder.parent / row[0]) == row[1] for row in rows if row and row[1].startswith("sha256="))
    except (OSError, IndexError, UnicodeDecodeError, csv.Error):
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode("ascii")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # rattler's threads may still run, and touch an interpreter that is being taken down (0.28: SIGSEGV)
