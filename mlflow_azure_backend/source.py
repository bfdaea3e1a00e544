"""Where a project's files are: a project URI becomes a folder.

A local folder is used where it is and never written to. Everything else (git, zip, a local repository with a
``version``) is fetched into a folder of ours. The URIs are MLflow's (``mlflow.projects.utils._fetch_project``).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import unquote

from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.git import (
    Clone,
    GitState,
    git_state,
    is_bare_repository,
    is_on_a_remote,
    redact_uri,
    remote_url,
    repository_root,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from zipfile import ZipFile, ZipInfo

_GIT_SCHEMES: Final = frozenset({"http", "https", "ssh", "git", "git+ssh", "ssh+git", "ftp", "ftps"})
_SCP_LIKE: Final = re.compile(r"[^/:]{2,}:")  # git's "host:path"; one letter would be a Windows drive
_REMOTE_HELPER: Final = re.compile(r"[A-Za-z0-9+.-]+::")

MAX_ZIP_BYTES: Final = 2 << 30
"""Bytes that a zip file may have, packed or unpacked."""
MAX_ZIP_MEMBERS: Final = 100_000
"""Files and folders that a zip file may hold."""
MAX_ZIP_RATIO: Final = 200
"""How many times its size a zip file of more than ``FREE_ZIP_BYTES`` may grow."""
FREE_ZIP_BYTES: Final = 64 << 20
"""Unpacked bytes below which no ratio is looked at."""
_HTTP_TIMEOUT: Final = 60.0  # seconds without a byte
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ProjectSource:
    """A project's files, and where they came from.

    Attributes:
        uri: The URI as the user gave it, without its credentials.
        folder: Where the MLproject is: absolute, links resolved, the subdirectory applied.
        is_checkout: True when the files are a copy of ours, to be removed by us; False for the user's own folder.
        git: None when the folder is not under git, or when ``git_note`` says why git's answer could not be had.
        git_note: One line on why a repository that is there is not described by ``git``; None when there is no such
            surprise.
    """

    uri: str
    folder: Path
    is_checkout: bool
    git: GitState | None
    git_note: str | None = None


def fetch_project(uri: str, version: str | None, checkout: Path) -> ProjectSource:
    """Find the project's files, fetching them when they are not a local folder.

    Args:
        uri: A folder, a ``file://`` URI, a git URI or a zip file (local or http), each with or without
            ``#subdirectory``.
        version: A branch, tag or commit (short or full) of a git repository; None means the folder as it is, or the
            default branch.
        checkout: The folder to fetch into. It must not exist and its parent must; it is created with mode 0700 and
            removed on failure. A local folder without a version leaves it alone.

    Raises:
        ProjectError: The files cannot be had. Nothing is left behind, and no credential is in the message.
    """
    _refuse_dangerous(uri, version)
    base, subdirectory = _split_uri(uri)
    shown = redact_uri(uri)
    local = _local_path(base)
    if local is not None and not _exists(local):
        raise _no_such_folder(local, shown)
    if _is_zip(base, local):
        if version is not None:
            raise ProjectError(
                "a zip file has no versions", where=shown, next_step="leave --version out, or give a git URI"
            )
        return _from_zip(base, local, subdirectory, shown, checkout)
    if local is None:
        return _from_git(base, base, subdirectory, version, shown, checkout)
    if not local.is_dir():
        raise ProjectError("is not a folder", where=shown, next_step=f"give the folder: mlflow run {local.parent}")
    return _from_folder(local.resolve(), subdirectory, version, shown, checkout)


def is_fetchable_commit(source: ProjectSource) -> bool:
    """Whether anybody who may read the project's repository can have exactly these files, so that no copy is needed.

    A commit that was not pushed, or a repository that lives on this machine, is nobody else's.
    """
    git = source.git
    if git is None or not git.clean or git.repo_url is None or not _is_remote(git.repo_url):
        return False
    if source.is_checkout:
        return _is_remote(source.uri.partition("#")[0])
    return is_on_a_remote(source.folder, git.commit)


# What kind of URI it is.


def _refuse_dangerous(uri: str, version: str | None) -> None:
    bare = _unquoted(uri)
    if not bare or "\0" in bare or bare.startswith("-") or _REMOTE_HELPER.match(bare):
        raise ProjectError(
            f"{redact_uri(bare)!r} is no project URI",
            next_step="give a folder, a git URI (https, ssh, file) or a zip file",
        )
    if version is not None and (not version or "\0" in version or version.startswith("-")):
        raise ProjectError(f"{version!r} is no version", next_step="give a branch, a tag or a commit")


def _unquoted(uri: str) -> str:
    """MLflow forgives quotes that a shell did not take away; one that is a part of the folder's name stays."""
    return uri[1:-1] if len(uri) > 1 and uri[0] == uri[-1] and uri[0] in "'\"" else uri


def _split_uri(uri: str) -> tuple[str, str]:
    """Part a URI from its ``#subdirectory``; a folder that has ``#`` in its name keeps it."""
    bare = _unquoted(uri)
    base, mark, subdirectory = bare.partition("#")
    if not mark or ("://" not in bare and not _exists(Path(base)) and _exists(Path(bare))):
        return bare, ""
    path = PurePosixPath(subdirectory)
    if path.is_absolute() or ".." in path.parts:
        raise ProjectError(
            f"the subdirectory '{subdirectory}' leaves the project",
            where=redact_uri(uri),
            next_step="name one inside it",
        )
    return base, "" if path == PurePosixPath() else path.as_posix()


def _local_path(base: str) -> Path | None:
    """Read a path or a ``file://`` URI; None for what can only be remote."""
    if not base.lower().startswith("file://"):
        return Path(base) if _exists(Path(base)) or not _is_remote(base) else None
    host, slash, path = base[len("file://") :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise ProjectError("is no absolute file URI", where=base, next_step="write file:///absolute/path")
    plain = Path(f"/{path}")
    # MLflow takes a file URI's path literally; an encoded one (%20) is what other tools write.
    return plain if _exists(plain) else Path(f"/{unquote(path)}")


def _is_remote(base: str) -> bool:
    scheme, mark, _ = base.partition("://")
    return scheme.lower() in _GIT_SCHEMES if mark else _SCP_LIKE.match(base) is not None


def _is_zip(base: str, local: Path | None) -> bool:
    if local is not None:
        return local.name.lower().endswith(".zip") and not local.is_dir()
    return re.match(r"https?://[^?]+\.zip(\?|$)", base, re.IGNORECASE) is not None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _no_such_folder(path: Path, shown: str) -> ProjectError:
    if "://" in shown and not shown.lower().startswith("file://"):
        return ProjectError(
            "is of a kind that cannot be fetched", where=shown, next_step="give a folder, a git URI or a zip file"
        )
    return ProjectError("there is no such folder", where=shown, next_step=_nearest_sibling(path))


def _nearest_sibling(path: Path) -> str:
    """A next step that names the entry most like one that does not exist."""
    try:
        siblings = [entry.name for entry in path.absolute().parent.iterdir()]
    except (OSError, ValueError):
        return f"'{path.parent}' does not exist either"
    near = get_close_matches(path.name, siblings, n=1)
    return f"did you mean '{path.parent / near[0]}'?" if near else f"look at: ls {path.parent}"


def _inside(top: Path, subdirectory: str, shown: str) -> Path:
    """The subdirectory of a fetched or local project, which must be a folder."""
    folder = top / subdirectory
    if not folder.is_dir():
        step = _nearest_sibling(folder)
        raise ProjectError(f"has no folder '{subdirectory}'", where=shown, next_step=step.replace(f"{top}/", ""))
    return folder.resolve()


# A folder of the user's.


def _from_folder(folder: Path, subdirectory: str, version: str | None, shown: str, checkout: Path) -> ProjectSource:
    if version is None and not is_bare_repository(folder):
        project = _inside(folder, subdirectory, shown)
        git, note = git_state(project)
        return ProjectSource(shown, project, is_checkout=False, git=git, git_note=note)
    root = folder if is_bare_repository(folder) else repository_root(folder)
    if root is None:
        raise ProjectError(
            f"is no git repository, so it has no version '{version}'", where=shown, next_step="leave --version out"
        )
    # MLflow checks the version out in this very folder; the user's work is not ours to change, so a clone it is.
    inner = (folder.relative_to(root) / subdirectory).as_posix()
    url = remote_url(root) or str(root)
    return _from_git(str(root), url, "" if inner == "." else inner, version, shown, checkout)


# Git.


def _from_git(base: str, url: str, subdirectory: str, version: str | None, shown: str, checkout: Path) -> ProjectSource:
    with _new_folder(checkout):
        Clone(base, shown, checkout).fetch(version)
        folder = _inside(checkout, subdirectory, shown)
        if not folder.is_relative_to(checkout.resolve()):
            raise ProjectError(f"the subdirectory '{subdirectory}' is a link that leaves the repository", where=shown)
        git, note = git_state(folder, redact_uri(url))
        if git is None:
            step = "name a branch that has files with --version"
            raise ProjectError(f"there is nothing to run: {note}", where=shown, next_step=step)
        return ProjectSource(shown, folder, is_checkout=True, git=git)


# Zip files.


def _from_zip(base: str, local: Path | None, subdirectory: str, shown: str, checkout: Path) -> ProjectSource:
    with _new_folder(checkout):
        try:
            with _open_zip(base, local, shown, checkout) as file:
                _unpack(file, shown, checkout)
        except OSError as error:
            raise ProjectError(f"cannot be unpacked into {checkout}: {error.strerror or error}", where=shown) from error
        return ProjectSource(shown, _inside(checkout, subdirectory, shown), is_checkout=True, git=None)


@contextmanager
def _open_zip(base: str, local: Path | None, shown: str, checkout: Path) -> Iterator[IO[bytes]]:
    """The zip file's bytes; a remote one is first copied to a file that has no name."""
    if local is not None:
        with local.open("rb") as file:
            yield file
        return
    import tempfile

    with tempfile.TemporaryFile(dir=checkout.parent) as file:
        _download(base, shown, file)
        yield file


def _download(url: str, shown: str, file: IO[bytes]) -> None:
    import base64
    import http.client
    import urllib.error
    import urllib.request

    clean_url, user, password = without_credentials(url)
    try:
        request = urllib.request.Request(clean_url)  # noqa: S310 - _is_zip lets only http and https through
        if user is not None:
            pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {pair}")  # another server does not get it
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT) as response:  # noqa: S310 - as above
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                if file.tell() > MAX_ZIP_BYTES:
                    raise _refused(f"more than {MAX_ZIP_BYTES >> 20} MB", shown)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error))
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            reason = f"HTTP {error.code} {reason}"
        step = f"try: curl -fLO {shlex.quote(shown)}"
        raise ProjectError(f"cannot be downloaded: {reason}", where=shown, next_step=step) from error


def _unpack(file: IO[bytes], shown: str, checkout: Path) -> None:
    import lzma
    import zipfile
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, NotImplementedError)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_size(members, os.fstat(file.fileno()).st_size, shown)
            for member in members:
                _check_member(member, shown)
            for member in members:
                _extract(archive, member, shown, checkout)
    except broken as error:  # RuntimeError: encrypted; NotImplementedError: an unknown compression
        step = "test it with: unzip -t FILE"
        raise ProjectError(f"is no zip file that can be read: {error}", where=shown, next_step=step) from error


def _check_size(members: Sequence[ZipInfo], packed: int, shown: str) -> None:
    unpacked = sum(member.file_size for member in members)
    if len(members) > MAX_ZIP_MEMBERS:
        raise _refused(f"{len(members)} entries", shown)
    if max(packed, unpacked) > MAX_ZIP_BYTES or (unpacked > FREE_ZIP_BYTES and unpacked > MAX_ZIP_RATIO * packed):
        raise _refused(f"{unpacked >> 20} MB in {packed >> 10} KB", shown)


def _check_member(member: ZipInfo, shown: str) -> None:
    name = member.filename
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise _refused(f"the entry {name!r}, which would be written outside the project", shown)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(f"the entry {name!r}, which is a {'link' if kind == stat.S_IFLNK else 'device'}", shown)


def _extract(archive: ZipFile, member: ZipInfo, shown: str, checkout: Path) -> None:
    target = checkout / member.filename
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = 0o777 if (member.external_attr >> 16) & 0o111 else 0o666  # the umask takes its part
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise _refused(f"the entry {member.filename!r} twice", shown) from None
    # zipfile never gives more bytes than the entry's declared size, which has been counted.
    with os.fdopen(descriptor, "wb") as output, archive.open(member) as content:
        shutil.copyfileobj(content, output, _CHUNK)


def _refused(what: str, shown: str) -> ProjectError:
    return ProjectError(
        f"the zip file holds {what}", where=shown, next_step="unpack it yourself, look at it, and run the folder"
    )


# Folders of ours.


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Create a folder for our eyes only; whatever goes wrong inside the block removes it again."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ProjectError(f"cannot be created to fetch into: {error.strerror}", where=folder) from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
