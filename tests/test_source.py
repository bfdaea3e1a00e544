"""Project URIs: every kind is fetched, the user's own folder is never changed, and nothing is left after a failure."""

from __future__ import annotations

import base64
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.git import redact_uri
from mlflow_azure_backend.source import ProjectSource, fetch_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "canary-p@ss"  # noqa: S105 - a canary
WEIRD = "we ird 'q' \"d\" ü\nline"


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration of the machine's, and a name to commit with."""
    for name, value in {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "protocol.file.allow=always", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits on main, a tag on the first, a branch with a file of its own, a project in a subdirectory."""
    folder = tmp_path / WEIRD / "repo"
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder, "MLproject", "name: one\n")
    git(folder, "tag", "v1.0")
    git(folder, "checkout", "--quiet", "-b", "feature/x")
    commit(folder, "extra", "x\n")
    git(folder, "checkout", "--quiet", "main")
    commit(folder, "sub/MLproject", "name: two\n")
    return folder


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fails(uri: str, version: str | None, checkout: Path) -> str:
    """The message of the error that the URI ends in, after which nothing is left."""
    with pytest.raises(ProjectError) as caught:
        fetch_project(uri, version, checkout)
    assert not checkout.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Local folders.


def test_local_folder_is_used_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    checkout = tmp_path / "checkout"
    expected = ProjectSource(".", tmp_path, is_checkout=False, git=None)
    assert fetch_project(".", None, checkout) == expected
    assert fetch_project("'.'", None, checkout).folder == tmp_path  # MLflow takes the quotes off
    assert fetch_project("./#sub", None, checkout).folder == tmp_path / "sub"
    assert fetch_project(f"file://{tmp_path}#sub/", None, checkout).folder == tmp_path / "sub"
    assert fetch_project(f"file://localhost{tmp_path}", None, checkout).folder == tmp_path
    assert not checkout.exists()


def test_names_that_look_like_something_else(tmp_path: Path) -> None:
    for name in ("a#b", "x.zip", "per%20cent", "sp ace", WEIRD):
        (tmp_path / name).mkdir()
        assert fetch_project(str(tmp_path / name), None, tmp_path / "c").folder == tmp_path / name
    assert fetch_project(f"file://{tmp_path}/per%20cent", None, tmp_path / "c").folder == tmp_path / "per%20cent"
    assert fetch_project(f"file://{tmp_path}/sp%20ace", None, tmp_path / "c").folder == tmp_path / "sp ace"


def test_missing_folder_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    assert f"did you mean '{tmp_path}/projects'?" in fails(str(tmp_path / "project"), None, tmp_path / "c")
    assert f"did you mean '{tmp_path}/projects'?" in fails(f"file://{tmp_path}/project", None, tmp_path / "c")
    assert "does not exist either" in fails(str(tmp_path / "nowhere" / "x"), None, tmp_path / "c")
    assert "ls " in fails(str(tmp_path / "zzz"), None, tmp_path / "c")


def test_file_instead_of_folder(tmp_path: Path) -> None:
    (tmp_path / "MLproject").write_text("")
    assert f"mlflow run {tmp_path}" in fails(str(tmp_path / "MLproject"), None, tmp_path / "c")


@pytest.mark.parametrize("subdirectory", ["nope", "../x", "a/../../x", "/etc", "sib"])
def test_wrong_subdirectory(tmp_path: Path, subdirectory: str) -> None:
    (tmp_path / "project" / "sibling").mkdir(parents=True)
    (tmp_path / "x").mkdir()
    message = fails(f"{tmp_path / 'project'}#{subdirectory}", None, tmp_path / "c")
    assert f"'{subdirectory}'" in message
    assert subdirectory != "sib" or "did you mean 'sibling'?" in message


def test_dot_in_a_subdirectory_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "v1.0" / "a").mkdir(parents=True)
    assert fetch_project(f"{tmp_path}#./v1.0/a", None, tmp_path / "c").folder == tmp_path / "v1.0" / "a"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "''",
        "--upload-pack=x",
        "ext::sh -c touch% /tmp/x",
        "fd::17",
        "a\0b",
        "s3://bucket/x",
        "file://",
        "file://host/x",
    ],
)
def test_no_project_uri(tmp_path: Path, uri: str) -> None:
    fails(uri, None, tmp_path / "c")


@pytest.mark.parametrize("version", ["", "--upload-pack=touch x", "a\0b"])
def test_no_version(repository: Path, tmp_path: Path, version: str) -> None:
    assert "is no version" in fails(str(repository), version, tmp_path / "c")


def test_version_of_a_plain_folder(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    assert "is no git repository" in fails(str(tmp_path / "project"), "main", tmp_path / "c")


# The state of a folder under git.


def test_state_of_a_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "remote", "add", "origin", f"https://me:{PASSWORD}@example.com/r.git?sig={PASSWORD}")
    index = (repository / ".git" / "index").read_bytes()
    os.utime(repository / "MLproject", (1, 1))  # git would refresh its index, were it allowed to
    source = fetch_project(f"{repository}#sub", None, tmp_path / "c")
    assert source.git is not None
    assert source.git.commit == git(repository, "rev-parse", "HEAD")
    assert (source.git.branch, source.git.subdirectory, source.git.clean) == ("main", "sub", True)
    assert source.git.repo_url == "https://example.com/r.git?***"
    assert (repository / ".git" / "index").read_bytes() == index
    assert PASSWORD not in repr(source)


def test_state_is_of_the_folder_only(repository: Path, tmp_path: Path) -> None:
    (repository / "untracked").write_text("")
    in_root, in_sub = (fetch_project(f"{repository}#{sub}", None, tmp_path / "c").git for sub in ("", "sub"))
    assert in_root is not None
    assert in_sub is not None
    assert (in_root.clean, in_sub.clean) == (False, True)
    assert (in_root.repo_url, in_root.subdirectory) == (None, "")
    (repository / "untracked").unlink()
    (repository / "sub" / "MLproject").write_text("changed")
    git(repository, "checkout", "--quiet", "--detach")
    git(repository, "config", "status.showUntrackedFiles", "no")
    state = fetch_project(str(repository), None, tmp_path / "c").git
    assert state is not None
    assert (state.clean, state.branch) == (False, None)
    git(repository, "checkout", "--quiet", ".")
    (repository / "untracked").write_text("")
    again = fetch_project(str(repository), None, tmp_path / "c").git
    assert again is not None
    assert not again.clean


def test_ignored_folder_is_not_clean_but_unknown(repository: Path, tmp_path: Path) -> None:
    commit(repository, ".gitignore", "build/\n*.log\n")
    (repository / "build" / "project").mkdir(parents=True)
    (repository / "build" / "project" / "train.py").write_text("")
    (repository / "sub" / "x.log").write_text("")
    source = fetch_project(f"{repository}#build/project", None, tmp_path / "c")
    assert source.git is None
    assert "git ignores this folder" in str(source.git_note)
    assert fetch_project(f"{repository}#sub", None, tmp_path / "c").git is not None


def test_repository_without_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    source = fetch_project(str(tmp_path), None, tmp_path / "c")
    assert source.git is None
    assert "has no commit yet" in str(source.git_note)


def test_repository_of_somebody_else(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for its own tests
    source = fetch_project(str(repository), None, tmp_path / "c")
    assert source.git is None
    assert "dubious ownership" in str(source.git_note)
    assert "git config --global --add safe.directory" in str(source.git_note)
    assert "dubious ownership" in fails(str(repository), "main", tmp_path / "c")


def test_git_is_absent(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = fetch_project(str(repository), None, tmp_path / "c")
    assert source.git is None
    assert "git cannot be started" in str(source.git_note)
    assert "install git" in fails(str(repository), "main", tmp_path / "c")


def test_broken_dot_git(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    source = fetch_project(str(tmp_path), None, tmp_path / "c")
    assert source.git is None
    assert "not a git repository" in str(source.git_note)


def test_variables_of_a_git_hook_do_not_mislead(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    commit(other, "file", "")
    expected = git(repository, "rev-parse", "main")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    state = fetch_project(str(repository), None, tmp_path / "c").git
    assert state is not None
    assert state.commit == expected
    assert fetch_project(str(repository), "v1.0", tmp_path / "c").git is not None


def test_programs_of_a_hostile_repository_do_not_run(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    for hook in ("post-checkout", "post-index-change", "reference-transaction"):
        (repository / ".git" / "hooks" / hook).symlink_to(trap)
    fetch_project(str(repository), None, tmp_path / "c")
    fetch_project(str(repository), "v1.0", tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


# A local repository with a version.


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize(
    ("version", "branch", "files"),
    [
        ("main", "main", {"MLproject", "sub"}),
        ("feature/x", "feature/x", {"MLproject", "extra"}),
        ("v1.0", None, {"MLproject"}),
    ],
)
def test_version_of_a_local_repository(
    repository: Path, tmp_path: Path, prefix: str, version: str, branch: str | None, files: set[str]
) -> None:
    (repository / "MLproject").write_text("work in progress")
    before = every_file(repository)
    checkout = tmp_path / "checkout"
    source = fetch_project(f"{prefix}{repository}", version, checkout)
    assert (source.folder, source.is_checkout, source.uri) == (checkout, True, f"{prefix}{repository}")
    assert {path.name for path in checkout.iterdir()} == files | {".git"}
    assert (checkout / "MLproject").read_text() == "name: one\n"
    assert source.git is not None
    assert source.git.commit == git(repository, "rev-parse", f"{version}^{{commit}}")
    assert (source.git.branch, source.git.clean, source.git.repo_url) == (branch, True, str(repository))
    assert stat.S_IMODE(checkout.stat().st_mode) == 0o700
    assert every_file(repository) == before
    assert (checkout / ".git" / "shallow").exists()


@pytest.mark.parametrize("length", [7, 40])
def test_commit_of_a_local_repository(repository: Path, tmp_path: Path, length: int) -> None:
    wanted = git(repository, "rev-parse", "main~1")
    source = fetch_project(str(repository), wanted[:length], tmp_path / "c")
    assert source.git is not None
    assert (source.git.commit, source.git.branch) == (wanted, None)
    assert (tmp_path / "c" / ".git" / "shallow").exists() == (length == 40)


def test_commit_when_only_branches_can_be_fetched(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = git(repository, "rev-parse", "main~1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")  # the old protocol gives no commit by its hash
    source = fetch_project(str(repository), wanted, tmp_path / "c")
    assert source.git is not None
    assert source.git.commit == wanted


def test_version_of_a_folder_inside_a_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "remote", "add", "origin", f"https://{PASSWORD}@example.com/r.git")
    source = fetch_project(str(repository / "sub"), "main", tmp_path / "c")
    assert source.folder == tmp_path / "c" / "sub"
    assert source.git is not None
    assert (source.git.subdirectory, source.git.repo_url) == ("sub", "https://example.com/r.git")
    assert "has no folder 'sub'" in fails(str(repository / "sub"), "v1.0", tmp_path / "d")


def test_bare_repository(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(repository), str(bare))
    source = fetch_project(f"file://{bare}#sub", None, tmp_path / "c")
    assert source.folder == tmp_path / "c" / "sub"
    assert source.git is not None
    assert source.git.branch == "main"


def test_unknown_version_names_the_nearest(repository: Path, tmp_path: Path) -> None:
    assert "did you mean 'main'?" in fails(str(repository), "mian", tmp_path / "c")
    assert "did you mean 'main'?" in fails(str(repository), "origin/main", tmp_path / "c")
    assert "there are: feature/x, main, v1.0" in fails(str(repository), "zzz", tmp_path / "c")
    assert "has no commit 'deadbeef'" in fails(str(repository), "deadbeef", tmp_path / "c")
    assert f"has no commit '{'d' * 40}'" in fails(str(repository), "d" * 40, tmp_path / "c")


def test_empty_repository(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    git(bare, "init", "--quiet", "--bare")
    assert "has no commit yet" in fails(str(bare), None, tmp_path / "c")
    assert "there are: none" in fails(str(bare), "main", tmp_path / "c")


@pytest.mark.parametrize("protocol", ["0", "2"])
def test_submodules(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
    git(inner, "submodule", "--quiet", "add", str(repository), "deep")
    commit(inner, "file", "old")
    git(outer, "submodule", "--quiet", "add", "../inner", "inner")  # relative to the remote's URL
    commit(outer, "MLproject", "")
    commit(inner, "file", "new")  # so the submodule's commit is not at the tip of a branch
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", protocol)
    source = fetch_project(str(outer), "main", tmp_path / "c")
    assert (source.folder / "inner" / "file").read_text() == "old"
    assert (source.folder / "inner" / "deep" / "MLproject").exists()
    assert source.git is not None
    assert source.git.clean


def test_submodule_that_cannot_be_fetched(repository: Path, tmp_path: Path) -> None:
    git(repository, "submodule", "--quiet", "add", str(repository), "self")
    git(repository, "config", "--file", ".gitmodules", "submodule.self.url", str(tmp_path / "gone"))
    commit(repository, "file", "")
    assert "git cannot fetch it" in fails(str(repository), "main", tmp_path / "c")


def test_subdirectory_that_is_a_link_out_of_the_repository(repository: Path, tmp_path: Path) -> None:
    (repository / "link").symlink_to("/etc")
    commit(repository, "file", "")
    assert "leaves the repository" in fails(f"{repository}#link", "main", tmp_path / "c")


def test_checkout_that_exists_is_left_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine").write_text("")
    with pytest.raises(ProjectError, match="cannot be created"):
        fetch_project(str(repository), "main", tmp_path / "c")
    assert (tmp_path / "c" / "mine").exists()


# A server.


class Server(ThreadingHTTPServer):
    """Serves a folder's files below /files, its git repositories below /git, and asks for a password below /private."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked = threading.Event()
        self.hung_up = threading.Event()
        self.authorizations: list[str | None] = []

    def uri(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.authorizations.append(self.headers["Authorization"])
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "private":
            expected = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
            if self.headers["Authorization"] != f"Basic {expected}":
                self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
                return
            kind, _, rest = rest.partition("/")
        if kind == "git":
            self.run_git(rest)
        elif kind == "elsewhere":
            self.answer(302, b"", {"Location": self.server.uri(rest)})
        elif kind == "hang":
            self.server.asked.set()
            self.connection.recv(1)
            self.server.hung_up.set()
        else:
            path = self.server.folder / rest.partition("?")[0]
            self.answer(200, path.read_bytes()) if path.is_file() else self.answer(404, b"")

    do_POST = do_GET  # noqa: N815 - http.server's name

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def run_git(self, rest: str) -> None:
        path, _, query = rest.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{path}",
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environment = os.environ | variables
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, check=True, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.answer(int(headers.pop("Status", "200")[:3]), content, headers)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def served(server: Server, repository: Path) -> Server:
    """A server that has the repository as ``r.git``, for smart clients and for dumb ones."""
    git(repository, "clone", "--quiet", "--bare", str(repository), str(server.folder / "r.git"))
    git(server.folder / "r.git", "update-server-info")
    return server


def test_git_over_http(served: Server, repository: Path, tmp_path: Path) -> None:
    uri = served.uri("git/r.git")
    source = fetch_project(f"{uri}#sub", None, tmp_path / "c")
    assert source.folder == tmp_path / "c" / "sub"
    assert (source.uri, source.is_checkout) == (f"{uri}#sub", True)
    assert source.git is not None
    assert source.git.commit == git(repository, "rev-parse", "main")
    assert (source.git.branch, source.git.repo_url, source.git.subdirectory) == ("main", uri, "sub")
    assert (tmp_path / "c" / ".git" / "shallow").exists()
    assert "did you mean 'v1.0'?" in fails(uri, "v10", tmp_path / "d")


@pytest.mark.parametrize("version", [None, "main", "commit"])
def test_git_from_a_plain_file_server(served: Server, repository: Path, tmp_path: Path, version: str | None) -> None:
    wanted = git(repository, "rev-parse", "main")
    source = fetch_project(served.uri("files/r.git"), wanted if version == "commit" else version, tmp_path / "c")
    assert source.git is not None
    assert source.git.commit == wanted


def test_credentials_reach_the_server_and_nothing_else(served: Server, tmp_path: Path) -> None:
    submodule_host = served.folder / "with_submodule"
    submodule_host.mkdir()
    git(submodule_host, "init", "--quiet", "--initial-branch=main")
    git(submodule_host, "submodule", "--quiet", "add", str(served.folder / "r.git"), "inner")
    git(submodule_host, "config", "--file", ".gitmodules", "submodule.inner.url", "../r.git")
    commit(submodule_host, "MLproject", "")
    uri = served.uri("private/git/with_submodule/.git", f"me:{PASSWORD.replace('@', '%40')}@")
    uri = uri.replace("with_submodule/.git", "with_submodule")
    source = fetch_project(uri, "main", tmp_path / "c")
    assert (source.folder / "inner" / "MLproject").exists()
    assert PASSWORD not in repr(source)
    assert "me:" not in repr(source)
    assert source.git is not None
    assert source.git.repo_url == served.uri("private/git/with_submodule")
    written = b"".join(every_file(tmp_path / "c").values())
    assert b"canary" not in written
    assert any(served.authorizations)


def test_wrong_credentials(served: Server, tmp_path: Path) -> None:
    for user in ("", "me@", "me:canary-wrong@"):
        message = fails(served.uri("private/git/r.git", user), None, tmp_path / "c")
        assert "git cannot fetch it" in message
        assert "canary" not in message


def test_repository_that_cannot_be_reached(server: Server, tmp_path: Path) -> None:
    message = fails(server.uri("git/nope.git", f"me:{PASSWORD}@"), "main", tmp_path / "c")
    assert "not found" in message
    assert "git ls-remote http://127.0.0.1" in message
    assert "canary" not in message
    assert "git cannot fetch it" in fails("http://127.0.0.1:1/x.git", None, tmp_path / "c")
    assert "git cannot fetch it" in fails("git@127.0.0.1.invalid:x/y.git", None, tmp_path / "c")


def test_interruption_ends_git_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from mlflow_azure_backend.source import fetch_project;"
        "fetch_project(sys.argv[1], None, pathlib.Path(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, server.uri("hang"), str(tmp_path / "c")],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert server.asked.wait(60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert server.hung_up.wait(60)
    assert not (tmp_path / "c").exists()


# Zip files.


def zip_of(path: Path, members: dict[str, str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def test_zip_file(tmp_path: Path) -> None:
    path = tmp_path / "my project.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MLproject", "name: z\n")
        archive.writestr(with_mode("sub/run.sh", stat.S_IFREG | 0o755), "#!/bin/sh\n")
        archive.writestr("sub/ü 'q'.txt", "")
        archive.writestr("empty/", "")
    for uri in (str(path), f"file://{path}"):
        source = fetch_project(f"{uri}#sub", None, tmp_path / "c")
        assert source == ProjectSource(f"{uri}#sub", tmp_path / "c" / "sub", is_checkout=True, git=None)
        assert os.access(source.folder / "run.sh", os.X_OK)
        assert not stat.S_IMODE((tmp_path / "c" / "MLproject").stat().st_mode) & 0o111
        assert (tmp_path / "c" / "empty").is_dir()
        assert (source.folder / "ü 'q'.txt").exists()
        assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
        subprocess.run(["rm", "-r", str(tmp_path / "c")], check=True)


def test_zip_over_http(server: Server, tmp_path: Path) -> None:
    zip_of(server.folder / "p.zip", {"MLproject": "name: z\n"})
    signed = server.uri(f"files/p.zip?sig={PASSWORD}")
    source = fetch_project(signed, None, tmp_path / "c")
    assert (source.folder / "MLproject").read_text() == "name: z\n"
    assert "canary" not in repr(source)


def test_zip_over_http_with_credentials(server: Server, tmp_path: Path) -> None:
    zip_of(server.folder / "p.zip", {"MLproject": ""})
    user = f"me:{PASSWORD}@"
    assert (fetch_project(server.uri("private/files/p.zip", user), None, tmp_path / "c").folder / "MLproject").exists()
    server.authorizations.clear()
    fetch_project(server.uri("elsewhere/files/p.zip", user), None, tmp_path / "d")
    assert server.authorizations[1:] == [None]  # the place that we were sent to is not told


@pytest.mark.parametrize("path", ["files/nope.zip", "private/files/p.zip"])
def test_zip_that_cannot_be_downloaded(server: Server, tmp_path: Path, path: str) -> None:
    message = fails(server.uri(f"{path}?sig={PASSWORD}", "you:canary@"), None, tmp_path / "c")
    assert "cannot be downloaded: HTTP 40" in message
    assert "canary" not in message


def test_zip_from_nowhere(tmp_path: Path) -> None:
    assert "cannot be downloaded" in fails("http://127.0.0.1:1/p.zip", None, tmp_path / "c")
    assert "cannot be downloaded" in fails("http://127.0.0.1:x/p.zip", None, tmp_path / "c")
    zip_of(tmp_path / "project.zip", {})
    assert f"did you mean '{tmp_path}/project.zip'?" in fails(str(tmp_path / "projects.zip"), None, tmp_path / "c")
    assert "no versions" in fails(str(tmp_path / "project.zip"), "main", tmp_path / "c")
    assert "has no folder 'sub'" in fails(f"{tmp_path}/project.zip#sub", None, tmp_path / "c")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/abs", "..\\x", "\\x", "C:\\x", "C:x", "a/..", "//host/x"])
def test_zip_that_reaches_outside(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fine", "")
        archive.writestr(zipfile.ZipInfo(name), "x")
    before = set(tmp_path.iterdir())
    assert repr(name) in fails(str(path), None, tmp_path / "c")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_zip_with_something_that_is_no_file(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(with_mode("odd", kind | 0o777), "/etc/passwd")
        archive.writestr("odd/inside", "x")
    assert "'odd', which is a " in fails(str(path), None, tmp_path / "c")


def test_zip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros", "w") as member:
        for _ in range(80):
            member.write(bytes(1 << 20))
    assert "80 MB in" in fails(str(path), None, tmp_path / "c")


def test_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    """The sizes in the directory are made small: no more than that is ever written."""
    path = zip_of(tmp_path / "p.zip", {"zeros": "0" * 1_000_000})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    assert "is no zip file that can be read" in fails(str(path), None, tmp_path / "c")


def test_zip_of_too_many_files(tmp_path: Path) -> None:
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 100_001
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, len(entry) * count, len(local), 0)
    (tmp_path / "p.zip").write_bytes(local + entry * count + end)
    assert "100001 entries" in fails(str(tmp_path / "p.zip"), None, tmp_path / "c")


def broken_text(path: Path) -> None:
    path.write_text("this is no zip file")


def broken_cut(path: Path) -> None:
    path.write_bytes(zip_of(path, {"a": "x" * 1000}).read_bytes()[:-30])


def broken_bit(path: Path) -> None:
    data = bytearray(zip_of(path, {"a": "x" * 1000}, zipfile.ZIP_STORED).read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def broken_encrypted(path: Path) -> None:
    data = bytearray(zip_of(path, {"a": "x"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def broken_method(path: Path) -> None:
    data = bytearray(zip_of(path, {"a": "x"}).read_bytes())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 99
    path.write_bytes(data)


def broken_twice(path: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    for buffer, name in ((first, "a"), (second, "b")):
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", name)
            archive.writestr("b", name)
    path.write_bytes(first.getvalue().replace(b"b", b"a"))


@pytest.mark.parametrize(
    "make",
    [broken_text, broken_cut, broken_bit, broken_encrypted, broken_method, broken_twice],
    ids=lambda f: f.__name__,
)
def test_broken_zip(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "p.zip")
    assert "zip file" in fails(str(tmp_path / "p.zip"), None, tmp_path / "c")


def test_zip_with_a_file_where_a_folder_is(tmp_path: Path) -> None:
    zip_of(tmp_path / "p.zip", {"a": "", "a/b": ""})
    assert "cannot be unpacked" in fails(str(tmp_path / "p.zip"), None, tmp_path / "c")


# What is shown.


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (".", "."),
        ("/a b/c#d", "/a b/c#d"),
        ("git@github.com:o/r.git#s", "git@github.com:o/r.git#s"),
        ("me:tok@github.com:o/r.git", "github.com:o/r.git"),
        ("https://tok@github.com/o/r#s", "https://github.com/o/r#s"),
        ("https://me:t@k@h:8443/r?sig=x#s", "https://h:8443/r?***#s"),
        ("ssh://git@h/r", "ssh://git@h/r"),
        ("ssh://git:pw@h/r", "ssh://git@h/r"),
        ("https://me:pw@[bad/r?sig=x", "https://[bad/r?***"),
        ("https://me:p/w@h/r", "https://h/r"),
        ("https://h:8443/@scope/r@1", "https://h:8443/@scope/r@1"),
        ("file:///a@b/c?d\n", "file:///a@b/c?d\n"),
    ],
)
def test_redacted_uri(uri: str, shown: str) -> None:
    assert redact_uri(uri) == shown
