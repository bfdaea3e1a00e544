"""What belongs to a snapshot, what does not, and that each path left out is said with its rule."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot import LeftOut, rule_for

if TYPE_CHECKING:
    from tests.snapshot.conftest import Git, Listed, Take, Write


def test_every_ignore_file_counts_and_the_later_one_wins(write: Write, take: Take) -> None:
    write({"a.csv": "", "b.csv": "", "c.csv": "", "src/d.csv": "", "src/e.log": "", "train.py": ""})
    write({".gitignore": "\n*.csv\n", ".amlignore": "!b.csv\n!c.csv\n", ".mlflowignore": "c.csv\n"})
    write({"src/.gitignore": "!d.csv\n*.log\n"})
    snapshot = take()
    ignore_files = [".amlignore", ".gitignore", ".mlflowignore"]
    assert [file.path for file in snapshot.files] == [*ignore_files, "b.csv", "src/.gitignore", "src/d.csv", "train.py"]
    assert list(snapshot.left_out) == [
        LeftOut("a.csv", ".gitignore:2"),
        LeftOut("c.csv", ".mlflowignore:1"),
        LeftOut("src/e.log", "src/.gitignore:2"),
    ]


def test_a_folder_that_is_left_out_is_not_walked(write: Write, take: Take) -> None:
    # Walking would fail, for the two names are one in NFC.
    write(
        {".gitignore": "data/\n!data/keep.csv\n", "data/keep.csv": "", "data/é": "", "data/e\u0301": "", "main.py": ""}
    )
    snapshot = take()
    assert [file.path for file in snapshot.files] == [".gitignore", "main.py"]
    assert list(snapshot.left_out) == [LeftOut("data/", ".gitignore:1")]


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(write: Write, listed: Listed) -> None:
    write({".gitignore": b"\xef\xbb\xbf*.csv\r\n*.log\r\n", "a.csv": "", "b.log": "", "c": ""})
    assert listed() == [".gitignore", "c"]


def test_an_ignore_file_that_is_no_file_is_none(project: Path, write: Write, listed: Listed) -> None:
    write({"a/.gitignore/x": "", "b/c": ""})
    os.mkfifo(project / "b/.gitignore")
    assert listed() == ["a/.gitignore/x", "b/c"]


def test_rules_of_the_work_tree_above_reach_into_the_project(project: Path, write: Write, git: Git, take: Take) -> None:
    write({".gitignore": "*.csv\n/inner/top.txt\n", ".mlflowignore": "*.mlf\n", "a.csv": ""})
    write(
        {"inner/.gitignore": "!c.csv\n", "inner/b.csv": "", "inner/c.csv": "", "inner/top.txt": "", "inner/x.mlf": ""}
    )
    write({"inner/x/top.txt": "", "inner/clone.txt": ""})
    above_no_work_tree = take(project / "inner")
    git("init", "--quiet")
    write({".git/info/exclude": "clone.txt\n"})
    snapshot = take(project / "inner")
    assert [file.path for file in snapshot.files] == [".gitignore", "c.csv", "x/top.txt"]
    assert list(snapshot.left_out) == [
        LeftOut("b.csv", "../.gitignore:1"),
        LeftOut("clone.txt", ".git/info/exclude:1"),
        LeftOut("top.txt", "../.gitignore:2"),
        LeftOut("x.mlf", "../.mlflowignore:1"),
    ]
    assert above_no_work_tree.left_out == ()


def test_a_linked_work_tree_knows_its_clones_own_rules(project: Path, write: Write, git: Git, take: Take) -> None:
    write({"main/a": ""})
    git("init", "--quiet", folder=project / "main")
    git("add", "a", folder=project / "main")
    git("commit", "--quiet", "--message", "a", folder=project / "main")
    git("worktree", "add", "--quiet", "../linked", folder=project / "main")
    write({"main/.git/info/exclude": "b\n", "linked/b": ""})
    snapshot = take(project / "linked")
    assert [file.path for file in snapshot.files] == ["a"]
    assert LeftOut("b", ".git/info/exclude:1") in snapshot.left_out


def test_a_work_tree_that_ignores_the_project_has_no_say(project: Path, write: Write, git: Git, take: Take) -> None:
    write({".gitignore": "scratch/\n*.csv\n", "scratch/inner/a.csv": ""})
    git("init", "--quiet")
    assert [file.path for file in take(project / "scratch/inner").files] == ["a.csv"]


def test_a_strangers_work_tree_has_no_say(project: Path, write: Write, git: Git, take: Take) -> None:
    write({".gitignore": "*.csv\n", "inner/a.csv": ""})
    git("init", "--quiet")
    assert take(project / "inner").files == ()
    os.chown(project / ".git", 4242, 4242)
    assert [file.path for file in take(project / "inner").files] == ["a.csv"]


def test_what_git_tracks_belongs_though_a_rule_of_git_matches_it(write: Write, git: Git, take: Take) -> None:
    write({"data/kept.csv": "", "data/é/kept.csv": "", "data/other.csv": "", "a.log": "", "b.log": "", "mlruns/x": ""})
    write({".gitignore": "data/\n*.log\n", ".amlignore": "b.log\n"})
    git("init", "--quiet")
    git("add", "--force", "data/kept.csv", "data/é/kept.csv", "a.log", "b.log", "mlruns/x")
    snapshot = take()
    tracked = ["a.log", "data/kept.csv", "data/é/kept.csv"]
    assert [file.path for file in snapshot.files] == [".amlignore", ".gitignore", *tracked]
    assert LeftOut("b.log", ".amlignore:1") in snapshot.left_out
    assert LeftOut("mlruns/", "built-in: tracking data") in snapshot.left_out
    assert rule_for(snapshot.manifest(), "data/kept.csv") is None
    assert rule_for(snapshot.manifest(), "data/other.csv") == ".gitignore:1"


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"])
def test_a_hook_of_another_repository_does_not_mislead(
    variable: str, tmp_path: Path, write: Write, git: Git, listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({".gitignore": "*.log\n", "a.log": ""})
    git("init", "--quiet")
    git("add", "--force", "a.log")
    monkeypatch.setenv(variable, str(tmp_path))
    assert listed() == [".gitignore", "a.log"]


def test_without_git_a_tracked_file_follows_the_rules_and_it_is_said(
    tmp_path: Path, write: Write, git: Git, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    write({".gitignore": "*.log\n", "a.log": ""})
    git("init", "--quiet")
    git("add", "--force", "a.log")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert LeftOut("a.log", ".gitignore:1") in take().left_out


@pytest.mark.parametrize(
    ("path", "said", "group"),
    [
        (".git/config", ".git/", "version control"),
        ("sub/.git", "sub/.git", "version control"),
        (".hg/store", ".hg/", "version control"),
        ("a/__pycache__/x.pyc", "a/__pycache__/", "caches"),
        ("x.pyc", "x.pyc", "caches"),
        ("node_modules/x/y.js", "node_modules/", "caches"),
        (".DS_Store", ".DS_Store", "caches"),
        ("a/mlruns/0/meta.yaml", "a/mlruns/", "tracking data"),
        ("mlflow.db-wal", "mlflow.db-wal", "tracking data"),
        ("outputs/model.pkl", "outputs/", "run outputs"),
        (".azureml/config.json", ".azureml/", "workspace settings"),
        ("env/pyvenv.cfg", "env/", "environments"),
        ("envs/x/conda-meta/history", "envs/x/", "environments"),
    ],
)
def test_left_out_unless_said_otherwise(path: str, said: str, group: str, write: Write, take: Take) -> None:
    write({path: "", "src/outputs/kept": "", "pyvenv.cfg": ""})
    snapshot = take()
    assert [file.path for file in snapshot.files] == ["pyvenv.cfg", "src/outputs/kept"]
    assert list(snapshot.left_out) == [LeftOut(said, f"built-in: {group}")]
    assert path in [file.path for file in take(include=(said, path)).files]


SECRETS = [".env", ".env.local", "a/.env", "tls.pem", "TLS.PEM", "x.key", "id_rsa", ".ssh/config", ".netrc", ".pypirc"]
SECRETS += ["credentials.json", ".aws/credentials", "service-account-prod.json", "azureauth.json", "x.pfx"]
HARMLESS = [".env.example", ".env.sample", "id_rsa.pub", "keys.py", "environment.yml", "config.json", "key", "pem.txt"]


@pytest.mark.parametrize("path", SECRETS)
def test_secrets_stay_here_unless_they_are_allowed(path: str, write: Write, take: Take, listed: Listed) -> None:
    write({path: "", "main.py": ""})
    assert take().left_out == (LeftOut(path, "secret"),)
    assert listed(include=("*",)) == ["main.py"]
    assert path in listed(allow=(path,))


@pytest.mark.parametrize("path", HARMLESS)
def test_what_only_resembles_a_secret_belongs(path: str, write: Write, listed: Listed) -> None:
    write({path: ""})
    assert listed() == [path]


def test_a_folder_that_is_called_as_a_secret_is_none(write: Write, listed: Listed) -> None:
    write({".env/notes.txt": "", "x.key/a": ""})
    assert listed() == [".env/notes.txt", "x.key/a"]


@pytest.mark.parametrize(
    ("files", "rules", "asking"),
    [
        ({".env": ""}, {"include": (".env",)}, "snapshot.include"),
        ({"a/.env": ""}, {"include": ("a/.env",)}, "snapshot.include"),
        ({"a/b.pem": ""}, {"include": ("*.pem",)}, "snapshot.include"),
        ({".env": "", ".gitignore": ".*\n!.env\n"}, {}, ".gitignore:2"),
        ({"a/x.key": "", "a/.mlflowignore": "!*.key\n"}, {}, "a/.mlflowignore:1"),
    ],
)
def test_a_rule_that_asks_for_a_secret_is_refused(
    files: dict[str, str], rules: dict[str, tuple[str, ...]], asking: str, write: Write, listed: Listed
) -> None:
    write(files)
    secret = next(iter(files))
    with pytest.raises(SnapshotError, match=rf"^{re.escape(secret)}: .*{re.escape(asking)}.*snapshot\.allow"):
        listed(**rules)
    assert secret in listed(**rules, allow=(secret,))


def test_allow_names_folders_and_takes_exceptions(write: Write, listed: Listed) -> None:
    write({"certs/a.pem": "", "certs/b.key": "", "c.pem": ""})
    assert listed(allow=("certs/", "!certs/b.key")) == ["certs/a.pem"]


def test_allow_alone_brings_nothing_back(write: Write, listed: Listed) -> None:
    write({".env": "", ".gitignore": ".env\n"})
    assert listed(allow=(".env",)) == [".gitignore"]
    assert listed(allow=(".env",), include=(".env",)) == [".env", ".gitignore"]


def test_include_reaches_into_folders_that_it_names(write: Write, take: Take) -> None:
    write({".gitignore": "data/\n*.tmp\n", "data/raw/a.csv": "", "data/raw/b.tmp": "", "data/c.csv": "", "x.tmp": ""})
    write({"mlruns/0/model/a.csv": "", "mlruns/1/a.csv": ""})
    assert [file.path for file in take(include=("*.csv",)).files] == [".gitignore"]
    snapshot = take(include=("data/raw/", "mlruns/*/model/", "x.tmp"))
    assert [file.path for file in snapshot.files] == [
        *(".gitignore", "data/raw/a.csv", "data/raw/b.tmp", "mlruns/0/model/a.csv", "x.tmp"),
    ]
    assert list(snapshot.left_out) == [LeftOut("data/", ".gitignore:1"), LeftOut("mlruns/", "built-in: tracking data")]
    assert [file.path for file in take(include=("data/**/b.*",)).files] == [".gitignore", "data/raw/b.tmp"]


def test_include_does_not_bring_what_is_built_in_without_its_name(write: Write, listed: Listed) -> None:
    write({"src/a.py": "", "src/__pycache__/a.pyc": "", "src/venv/pyvenv.cfg": ""})
    assert listed(include=("src/",)) == ["src/a.py"]


def test_exclude_beats_include_and_takes_exceptions(write: Write, take: Take) -> None:
    write({".gitignore": "data/\n", "data/a.csv": "", "data/b.csv": "", "c.csv": "", "d.csv": ""})
    snapshot = take(include=("data/",), exclude=("*.csv", "!a.csv", "!d.csv"))
    assert [file.path for file in snapshot.files] == [".gitignore", "d.csv", "data/a.csv"]
    assert list(snapshot.left_out) == [LeftOut("c.csv", "exclude"), LeftOut("data/b.csv", "exclude")]


def test_a_manifest_answers_for_files_and_what_lies_below_folders(write: Write, take: Take) -> None:
    write({".gitignore": "data/\n*.log\n", "data/a/b.csv": "", "x.log": "", "main.py": ""})
    manifest = json.loads(json.dumps(take().manifest()))
    asked = ("./data/a/b.csv", "data/", "data", "x.log", "main.py", "nowhere")
    assert [rule_for(manifest, path) for path in asked] == [*[".gitignore:1"] * 3, ".gitignore:2", None, None]
    assert [file["path"] for file in manifest["files"]] == [".gitignore", "main.py"]


def test_links_stay_in_the_project(project: Path, tmp_path: Path, write: Write, take: Take) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("outside")
    write({"shared/lib.py": "lib", "shared/deep/x.py": "x", "steps/one.py": "", "config/.env": "", "mlruns/a": ""})
    for name, target in {
        "link.py": "shared/lib.py",
        "steps/common": "../shared",
        "out.txt": str(tmp_path / "outside/secret.txt"),
        "out": "../outside",
        "dangling": "nowhere",
        "loop": "loop",
        "shared/up": "..",
        "shared/steps": "../steps",
        "harmless.txt": "config/.env",
        "run": "mlruns/a",
        "chain": "link.py",
    }.items():
        (project / name).symlink_to(target)
    snapshot = take()
    kept = ["chain", "link.py", "shared/deep/x.py", "shared/lib.py", "shared/steps/one.py"]
    kept += ["steps/common/deep/x.py", "steps/common/lib.py", "steps/one.py"]
    assert [file.path for file in snapshot.files] == kept
    assert {file.sha256 for file in snapshot.files if file.path in ("chain", "link.py", "steps/common/lib.py")} == {
        next(file.sha256 for file in snapshot.files if file.path == "shared/lib.py")
    }
    inside = "link to a folder, in a folder that is linked itself"
    assert {entry.path: entry.rule for entry in snapshot.left_out} == {
        "config/.env": "secret",
        "dangling": "link that leads nowhere",
        "harmless.txt": "secret",
        "loop": "link that leads nowhere",
        "mlruns/": "built-in: tracking data",
        "out.txt": "link out of the project",
        "out/": "link out of the project",
        "run": "built-in: tracking data",
        "shared/steps/common/": inside,
        "shared/up/": "link to a folder that holds it",
        "steps/common/steps/": inside,
        "steps/common/up/": "link to a folder that holds it",
    }
    assert "harmless.txt" in [file.path for file in take(allow=("harmless.txt",)).files]


def test_the_project_itself_may_be_reached_through_a_link(
    project: Path, tmp_path: Path, write: Write, take: Take
) -> None:
    write({"a": "a"})
    (tmp_path / "link").symlink_to(project)
    assert take(tmp_path / "link") == take()


def test_nothing_but_files_is_opened(project: Path, write: Write, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    write({"a": ""})
    os.mkfifo(project / "pipe")
    (project / "link to pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(project)  # a socket's path may have no more than 108 bytes
        listening.bind("socket")
        snapshot = take()
    assert [file.path for file in snapshot.files] == ["a"]
    assert {entry.path: entry.rule for entry in snapshot.left_out} == dict.fromkeys(
        ("pipe", "link to pipe", "socket"), "not a regular file"
    )


def test_awkward_names_belong_but_for_those_that_are_no_text(project: Path, take: Take) -> None:
    names = ["a\nb", "it's", '"x"', " ", "-rf", "日本", "a\\b", "$HOME", "*", "x" * 255]
    for name in names:
        (project / name).write_text(name)
    Path(os.fsdecode(os.fsencode(project) + b"/\xff.txt")).touch()
    snapshot = take()
    assert [file.path for file in snapshot.files] == sorted(names)
    assert list(snapshot.left_out) == [LeftOut(r"\xff.txt", "name is not UTF-8")]


def test_names_are_the_same_on_every_disk(project: Path, tmp_path: Path, write: Write, take: Take) -> None:
    write({"é/ü.txt": "x", "é/a": "y", ".gitignore": "ö\n", "ö": ""})
    other = tmp_path / "other"
    shutil.copytree(project, other)
    (other / "é/ü.txt").rename(other / unicodedata.normalize("NFD", "é/ü.txt").rpartition("/")[2])
    (other / unicodedata.normalize("NFD", "ü.txt")).rename(
        other / unicodedata.normalize("NFD", "é/ü.txt").replace("e\u0301", "é")
    )
    (other / "é").rename(other / unicodedata.normalize("NFD", "é"))
    (other / "ö").rename(other / unicodedata.normalize("NFD", "ö"))
    decomposed = take(other)
    assert (decomposed.files, decomposed.content_hash) == (take().files, take().content_hash)
    assert decomposed.left_out == take().left_out


def test_two_names_that_are_one_elsewhere_are_refused(write: Write, listed: Listed) -> None:
    write({"a/é": "1", "a/e\u0301": "2"})
    with pytest.raises(SnapshotError, match=r"^a/é: two names are the same"):
        listed()
    assert listed(exclude=("a/",)) == []


def test_folders_may_be_nested_deeply(project: Path, take: Take) -> None:
    depth = 1100
    descriptor = os.open(project, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a", dir_fd=descriptor)
        below = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    assert [len(file.path) for file in take().files] == [2 * depth + 1]
    subprocess.run(["rm", "-r", str(project / "a")], check=True)  # pytest cannot remove it, nor can shutil


def test_a_folder_that_does_not_exist_is_named(project: Path, take: Take) -> None:
    with pytest.raises(SnapshotError, match=r"does not exist"):
        take(project / "nowhere")


# Root reads everything, unless it gives up the capabilities that let it.
AS_MERE_MORTAL = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]
TAKE = """
import sys
from pathlib import Path
from mlflow_azure_backend.errors import SnapshotError
from mlflow_azure_backend.snapshot import SnapshotRules, take_snapshot
try:
    take_snapshot(Path(sys.argv[1]), SnapshotRules(), cache=None)
except SnapshotError as error:
    print(error)
"""


@pytest.mark.parametrize("unreadable", ["a file", "a folder/x", "sub/.gitignore"])
def test_what_cannot_be_read_is_named(unreadable: str, project: Path, write: Write) -> None:
    write({unreadable: ""})
    named = project / unreadable if "folder" not in unreadable else (project / unreadable).parent
    named.chmod(0)
    command = [sys.executable, "-c", TAKE, str(project)]
    prefix = AS_MERE_MORTAL if os.geteuid() == 0 else []
    said = subprocess.run([*prefix, *command], check=True, capture_output=True, text=True).stdout
    named.chmod(0o700)
    shown = str(named.relative_to(project))
    assert said.startswith(f"{shown}") and "cannot be read: Permission denied" in said
    assert ">> .mlflowignore" in said
