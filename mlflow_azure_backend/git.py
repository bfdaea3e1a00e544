"""Git, run as a process: what it says of a folder, and clones."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from mlflow_azure_backend.errors import ProjectError

if TYPE_CHECKING:
    from collections.abc import Sequence

_USER_VARIABLE: Final = "MLFLOW_AZURE_GIT_USER"
_PASSWORD_VARIABLE: Final = "MLFLOW_AZURE_GIT_PASSWORD"  # noqa: S105 - the variable's name
# "user:password@", also with a slash in the password that should have been encoded; "host:8080/" is none.
_USER_INFO: Final = re.compile(r"[^/?#]*@|[^/?#@]*:(?!\d+(?:[/?#]|$))[^@]*@")
_COMMIT: Final = re.compile(r"[0-9a-fA-F]{4,64}")
_FULL_COMMIT_LENGTHS: Final = (40, 64)  # SHA-1, SHA-256


@dataclass(frozen=True, slots=True)
class GitState:
    """What git says about the project's folder.

    Attributes:
        commit: The full hash of HEAD.
        branch: The branch that is checked out; None when HEAD is detached.
        repo_url: The first remote's URL without credentials, or the path of a local repository that has no remote and
            that we cloned; None when the repository has no remote.
        subdirectory: The folder's POSIX path in the repository, ``""`` for its root.
        clean: True when nothing in the folder differs from the commit and nothing in it is untracked.
    """

    commit: str
    branch: str | None
    repo_url: str | None
    subdirectory: str
    clean: bool


def redact_uri(uri: str) -> str:
    """Take user names, passwords and query strings (signatures) out of a URI; others are returned as they are.

    The user name of an ssh address stays: it is part of the address and no secret.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        # "user:token@host:path" is no address that git knows, yet it is what a slip of the hand looks like.
        return re.sub(r"^[^/@]+:[^/]*@", "", uri)
    if scheme.lower() == "file":
        return uri
    found = _USER_INFO.match(rest)
    user = f"{found[0].partition(':')[0].rstrip('@')}@" if found and "ssh" in scheme else ""
    host_and_path = rest[found.end() if found else 0 :]
    return f"{scheme}://{user}{re.sub(r'[?][^#]+', '?***', host_and_path)}"


def is_bare_repository(folder: Path) -> bool:
    """True for a repository without a work tree."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def repository_root(folder: Path) -> Path | None:
    """The work tree that a folder is in, by looking only: a git process costs milliseconds."""
    for candidate in (folder, *folder.parents):
        dot_git = candidate / ".git"
        if dot_git.is_file() or (dot_git / "HEAD").is_file():
            return candidate
    return None


def git_state(folder: Path, repo_url: str | None = None) -> tuple[GitState | None, str | None]:
    """What git knows of a folder, or None and why it tells nothing (None twice: there is no repository).

    ``repo_url`` None means that the repository is asked for it.
    """
    root = repository_root(folder)
    if root is None:
        return None, None
    subdirectory = "" if folder == root else folder.relative_to(root).as_posix()
    # Without optional locks git does not even refresh the user's index; without a monitor it starts no program.
    command = ["--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), "status", "--porcelain=v2", "-z"]
    command += ["--branch", "--no-ahead-behind", "--untracked-files=normal"]
    if subdirectory:
        command += ["--ignored=matching"]  # else a folder that is ignored as a whole would look clean
    try:
        answer = _run_git([*command, "--", "."])
        if answer.returncode != 0:
            return None, f"git cannot read the repository {root}: {_reason(answer.stderr)}"
        return _read_status(os.fsdecode(answer.stdout), root, subdirectory, repo_url or remote_url(root))
    except ProjectError as error:
        return None, str(error)


def _read_status(text: str, root: Path, subdirectory: str, repo_url: str | None) -> tuple[GitState | None, str | None]:
    """Read ``git status --porcelain=v2 -z --branch``, whose format is in ``git help status``."""
    entries = text.split("\0")
    headers = dict(entry[2:].split(" ", 1) for entry in entries if entry.startswith("# "))
    if headers["branch.oid"] == "(initial)":
        return None, f"the git repository {root} has no commit yet"
    ignored = [entry[2:] for entry in entries if entry.startswith("! ")]
    if any(path.endswith("/") and f"{subdirectory}/".startswith(path) for path in ignored):
        return None, f"git ignores this folder of the repository {root}"
    state = GitState(
        commit=headers["branch.oid"],
        branch=None if headers["branch.head"] == "(detached)" else headers["branch.head"],
        repo_url=repo_url,
        subdirectory=subdirectory,
        clean=not any(entry[:2] in ("1 ", "2 ", "u ", "? ") for entry in entries),
    )
    return state, None


def remote_url(root: Path) -> str | None:
    """The first remote's URL without credentials; None when there is none."""
    answer = _run_git(["-C", str(root), "config", "-z", "--get-regexp", r"^remote\..*\.url$"])
    _, _, url = os.fsdecode(answer.stdout).partition("\0")[0].partition("\n")
    return redact_uri(url) or None


def is_on_a_remote(folder: Path, commit: str) -> bool:
    """True when a branch of a remote, as it was last seen, has the commit."""
    question = ["for-each-ref", "--count=1", "--contains", commit, "--format=%(refname)", "refs/remotes"]
    answer = _run_git(["--no-optional-locks", "-C", str(folder), *question])
    return answer.returncode == 0 and bool(answer.stdout.strip())


class Clone:
    """One clone of a repository: depth 1 where the server allows it, no credential on disk or in an argument."""

    def __init__(self, base: str, shown: str, folder: Path) -> None:
        self._shown = shown
        self._folder = folder
        self._url, user, password = without_credentials(base)
        self._secrets = {_USER_VARIABLE: user or "", _PASSWORD_VARIABLE: password or ""}
        self._options = _credential_options(self._url, user, password)
        if Path(base).is_absolute():
            # Git fetches no submodule from this machine's files, unless it is told that the repository is from here.
            self._options += ["-c", "protocol.file.allow=always"]

    def fetch(self, version: str | None) -> None:
        """Check the version out; None means the default branch."""
        if version is None or version in self._named_versions(version):
            branch = [] if version is None else [f"--branch={version}"]
            shallow = self._run(self._clone("--depth=1", "--no-tags", *branch))
            if b"does not support shallow" in shallow.stderr:
                self._git(*self._clone("--no-tags", *branch))  # the "dumb" http protocol, from a plain file server
            else:
                self._check(shallow)
        else:
            self._fetch_commit(version)
        self._fetch_submodules()

    def _fetch_commit(self, version: str) -> None:
        if len(version) in _FULL_COMMIT_LENGTHS and self._succeeds(self._clone("--depth=1", "--no-checkout")):
            if self._succeeds(["-C", str(self._folder), "fetch", "--quiet", "--depth=1", "origin", version]):
                self._checkout(version)
                return
            _empty(self._folder)
        self._git(*self._clone("--no-checkout"))
        self._checkout(version)

    def _checkout(self, version: str) -> None:
        command = ["-C", str(self._folder), "checkout", "--quiet", "--detach", f"{version}^{{commit}}"]
        if not self._succeeds(command):
            raise ProjectError(
                f"has no commit '{version}'", where=self._shown, next_step="push it, or see: git log --oneline --all"
            )

    def _fetch_submodules(self) -> None:
        if not (self._folder / ".gitmodules").exists():
            return
        update = ["-C", str(self._folder), "submodule", "--quiet", "update", "--init", "--recursive"]
        if not self._succeeds([*update, "--depth=1"]):
            self._git("-C", str(self._folder), "submodule", "--quiet", "deinit", "--all", "--force")
            shutil.rmtree(self._folder / ".git" / "modules", ignore_errors=True)
            self._git(*update)

    def _named_versions(self, wanted: str) -> set[str]:
        """The repository's branches and tags; an error when the wanted one is not among them and can be no commit."""
        listing = os.fsdecode(self._git("ls-remote", "--quiet", "--heads", "--tags", "--", self._url))
        references = [line.partition("\t")[2] for line in listing.split("\n")]
        names = {name.split("/", 2)[-1] for name in references if name and not name.endswith("^{}")}
        if wanted in names or _COMMIT.fullmatch(wanted):
            return names
        near = get_close_matches(wanted, names, n=1) or get_close_matches(wanted.rpartition("/")[2], names, n=1)
        step = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(sorted(names)[:10]) or 'none'}"
        raise ProjectError(f"has no branch, tag or commit '{wanted}'", where=self._shown, next_step=step)

    def _clone(self, *options: str) -> list[str]:
        return ["clone", "--quiet", "--no-local", "--origin=origin", *options, "--", self._url, str(self._folder)]

    def _succeeds(self, command: Sequence[str]) -> bool:
        return self._run(command).returncode == 0

    def _git(self, *command: str) -> bytes:
        return self._check(self._run(command))

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        return _run_git([*self._options, *command], self._secrets)

    def _check(self, answer: subprocess.CompletedProcess[bytes]) -> bytes:
        if answer.returncode != 0:
            step = f"try: git ls-remote {shlex.quote(self._url)}"
            raise ProjectError(f"git cannot fetch it: {_reason(answer.stderr)}", where=self._shown, next_step=step)
        return answer.stdout


def without_credentials(url: str) -> tuple[str, str | None, str | None]:
    """Part an http or ftp URL from its user and password, None when it has none; another kind keeps its user only."""
    if not re.match(r"(https?|ftps?)://", url, re.IGNORECASE):
        return (redact_uri(url) if "://" in url else url), None, None
    parts = urlsplit(url)
    user_info, mark, host = parts.netloc.rpartition("@")
    if not mark:
        return url, None, None
    user, colon, password = user_info.partition(":")
    clean = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    return clean, unquote(user), unquote(password) if colon else None


def _credential_options(url: str, user: str | None, password: str | None) -> list[str]:
    """The git options that answer the server's question for credentials from our environment variables.

    In the URL they would end in the clone's configuration file and in the arguments of git's child processes, where
    everybody can read them. ``user`` None means that there are none; ``password`` None, that git's own helpers know it.
    """
    if user is None:
        return []
    key = "credential.{0.scheme}://{0.netloc}".format(urlsplit(url))
    options = [f"--config-env={key}.username={_USER_VARIABLE}"]
    if password is not None:
        helper = f'!f() {{ printf "password=%s\\n" "${_PASSWORD_VARIABLE}"; }}; f'
        options += ["-c", f"{key}.helper=", "-c", f"{key}.helper={helper}"]  # the empty one takes the user's away
    return options


def _run_git(command: Sequence[str], secrets: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run git without prompts, hooks and translations; an interruption ends its helpers too."""
    hardened = ["git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", *command]
    # Variables that name a repository come from a git hook that we were started by, and mean another repository.
    hook = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
    environment = {name: value for name, value in os.environ.items() if name not in (*hook, "SSH_ASKPASS")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C", **(secrets or {})}
    pipe = subprocess.PIPE
    try:
        # A session of its own has no terminal, so ssh cannot ask for a passphrase there.
        process = subprocess.Popen(
            hardened, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
    except OSError as error:
        raise ProjectError(
            f"git cannot be started: {error.strerror}", next_step="install git and put it on PATH"
        ) from error
    try:
        output, errors = process.communicate()
    except BaseException:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(hardened, process.returncode, output, errors)


def _reason(stderr: bytes) -> str:
    """The line of git's errors that says why, without credentials."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "ERROR:"))]
    fix = [line for line in lines if line.startswith("git config --global --add safe.directory")]
    return re.sub(r"//[^/\s']*@", "//", "; ".join([*(fatal or lines[-1:])[:1], *fix]))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
