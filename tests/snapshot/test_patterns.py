"""gitignore's language: the same reading as git's, in trees and patterns that nobody would write by hand."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.snapshot.patterns import FolderPatterns, Layer
from mlflow_azure_backend.snapshot.rules import SnapshotRules
from mlflow_azure_backend.snapshot.walk import list_files

if TYPE_CHECKING:
    from tests.snapshot.conftest import Git

# No letter beyond ASCII: git's `?` is a byte. None of our own rules' names: git has no such rules.
NAMES = re.split(r"\|", r"a|b|ab|a.c|b.c|foo|foo.c|[a]|#a|!a|A|x.tar.gz|-|z]|a\b|*|~|..a|a^|a b|a |foo bar")
PIECES = re.split(
    r"\|",
    r"a|b|a|b|foo|foo|.c|.c|tar|~|A|#|!|.|*|*|?|?|*.c|***|**|/|/|/**|**/|\|\*|\a| |\ |[ab]|[!a]|[^b]|[a-f]|[]a]|[!]]|"
    r"[a-|[z-a]|[a-z-]|[\]]|[a\-z]|[--a]|[[:bogus:]]|[[:alpha]x]|[[:alpha:]]|[![:digit:]]",
)


def ignores(lines: list[str], path: str) -> bool:
    """Whether a path is ignored, a folder when it ends in a slash; the folders above it are not asked about."""
    patterns = FolderPatterns().extended([("x", line) for line in lines], Layer.IGNORE_FILE)
    *_, found = patterns.along(path.removesuffix("/"), is_folder=path.endswith("/"))
    return Layer.IGNORE_FILE in found and not found[Layer.IGNORE_FILE].negated


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["data"], ["data", "data/", "a/data"], ["data.csv", "mydata"]),
        (["data/"], ["data/", "a/data/"], ["data"]),
        (["/data"], ["data"], ["a/data"]),
        (["a/b"], ["a/b"], ["x/a/b"]),
        (["**/a/b"], ["a/b", "x/a/b", "x/y/a/b"], ["a", "b"]),
        (["a/**/b"], ["a/b", "a/x/b", "a/x/y/b"], ["x/a/b"]),
        (["a/**"], ["a/x", "a/x/y"], ["a", "a/"]),
        (["*.csv", "!keep.csv"], ["x.csv", "a/x.csv"], ["keep.csv", "a/keep.csv"]),
        (["!keep.csv", "*.csv"], ["keep.csv"], []),
        (["*.tar.gz"], ["a.tar.gz"], ["a.gz", "a.tar"]),
        (["# data", r"\#data", r"\!data"], ["#data", "!data"], ["# data", "data"]),
        (["data   ", r"log\ "], ["data", "log "], ["data ", "log"]),
        (["a?c"], ["abc", "aéc"], ["ac", "a/c"]),
        (["a[!b]c"], ["axc"], ["abc", "a/c"]),
        (["a[b"], [], ["a[b", "ab"]),
        (["a\\"], [], ["a\\", "a"]),
        (["[z-a]"], ["z"], ["a", "m"]),
        (["[[:digit:]]"], ["7"], ["x", ":"]),
        (["DATA"], ["DATA"], ["data"]),
        (["", "   ", "/", "!"], [], ["a", " ", "a/"]),
        (["*"], ["a", "a/", ".a", "a/b"], []),
        (["a*b*c*d"], ["abcd", "a-b-c-d", "abbccd"], ["abcdx", "acbd", "abc"]),
        (["*a*a"], ["aa", "xaya"], ["a", "aab"]),
    ],
)
def test_a_pattern_means_what_git_says(lines: list[str], ignored: list[str], kept: list[str]) -> None:
    assert [path for path in [*ignored, *kept] if ignores(lines, path)] == ignored


def test_many_stars_do_not_take_for_ever() -> None:
    assert not ignores(["*a" * 40 + "b"], "a" * 250)


def random_pattern(choose: random.Random) -> str:
    text = "".join(choose.choice(PIECES) for _ in range(choose.randint(1, 5)))
    # What git 2.39 makes of two stars beside other characters depends on addresses in its memory.
    text = re.sub(r"(?<=[^/*])\*\*+|\*\*+(?=[^/*])", "*", text)
    # A slash in an open bracket: the one difference that `patterns.py` owns up to.
    text = text.replace("/", "") if re.search(r"\[a-(?!f|z).*/", text) else text
    text = choose.choice(("", "", "", "!")) + text
    return ("/" if choose.random() < 0.2 and not text.startswith(("*", "!")) else "") + text


def write_tree(folder: Path, choose: random.Random, depth: int = 0) -> None:
    folder.mkdir()
    for name in choose.sample(NAMES, choose.randint(1, 7)):
        if depth < 3 and choose.random() < 0.45:
            write_tree(folder / name, choose, depth + 1)
        else:
            (folder / name).touch()
    if choose.random() < (0.3 if depth else 0.9):
        lines = [random_pattern(choose) for _ in range(choose.randint(1, 5))]
        end = choose.choice(("\n", "\r\n"))
        (folder / ".gitignore").write_bytes(end.join([*lines, ""]).encode())


@pytest.mark.parametrize("seed", range(0, 120, 40))
def test_the_same_files_as_git(seed: int, tmp_path: Path, git: Git) -> None:
    git("init", "--quiet", folder=tmp_path)
    for number in range(seed, seed + 40):
        choose = random.Random(number)
        tree = tmp_path / f"tree {number}"
        write_tree(tree, choose)
        subprocess.run(["cp", "-r", str(tmp_path / ".git"), str(tree)], check=True)
        if choose.random() < 0.3:
            (tree / ".git/info/exclude").write_text(random_pattern(choose) + "\n")
        if choose.random() < 0.3:
            forced = [str(path) for path in sorted(tree.rglob("*")) if path.is_file() and ".git" not in path.parts][:2]
            git("--literal-pathspecs", "add", "--force", "--", *forced, folder=tree)
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=tree)
        expected = sorted(set(filter(None, listed.split("\0"))))
        assert list_files(tree, SnapshotRules()).paths() == expected, f"seed {number}"
