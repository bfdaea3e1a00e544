"""P6, P7, P8, P10: listing, hashing and packing a project of 20,000 files and 200 MB."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mlflow_azure_backend.snapshot import SnapshotRules, take_snapshot
from mlflow_azure_backend.snapshot.walk import list_files
from tests.benchmarks.bench import BYTES, Bench
from tests.benchmarks.measure import Goal, Result, by_turns, seconds, timed

RULES = SnapshotRules(max_size=2 * BYTES)


def packing(bench: Bench) -> Iterator[Result]:
    """P6: list, hash and archive in one pass, nothing known of the files."""
    tree, folder = bench.tree, bench.folder

    def ours() -> None:
        take_snapshot(tree, RULES, cache=None, archive=folder / "ours.tar.zst")

    def zipped() -> None:
        with zipfile.ZipFile(folder / "peer.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for path in _files(tree):
                file.write(path, path.relative_to(tree))

    def git_archive() -> None:
        bench.run(["git", "archive", "--format=tar", "--output", str(folder / "peer.tar"), "HEAD"], cwd=tree)

    def cat() -> None:
        bench.run(["sh", "-c", f"git ls-files -z | xargs -0 cat > '{folder}/peer.cat'"], cwd=tree)

    ratios = by_turns(timed(ours), timed(zipped), timed(git_archive), timed(cat))
    what = "snapshot of 20,000 files, 200 MB: list, hash, archive"
    for (wall, cpu), peer, limit in zip(ratios, ("zipfile", "git archive", "cat"), (0.25, 1.3, 2.5), strict=True):
        yield Result(f"P6 {peer}", what, f"`{peer}`", Goal(limit), wall, cpu, lambda: _parts(bench))


def _parts(bench: Bench) -> str:
    """How the time of P6 is made up."""
    import zstandard

    tree = bench.tree

    def read(digest: bool) -> None:
        for path in _files(tree):
            data = path.read_bytes()
            if digest:
                hashlib.sha256(data)

    whole = seconds(lambda: take_snapshot(tree, RULES, cache=None, archive=bench.folder / "ours.tar.zst"))
    data = b"".join(path.read_bytes() for path in _files(tree))
    compressing = seconds(lambda: zstandard.ZstdCompressor(level=1).compress(data))
    reading = seconds(lambda: read(False))
    hashing = seconds(lambda: hashlib.sha256(data))
    return (
        f"Of our time {compressing / whole:.0%} is Zstandard's at level 1, {hashing / whole:.0%} SHA-256's, and as much as "
        f"{reading / whole:.0%} goes to a plain Python loop that only opens and reads every file."
    )


def again(bench: Bench) -> Iterator[Result]:
    """P7: the same files once more, against a walk that hashes them all."""
    tree = bench.tree
    take_snapshot(tree, RULES, cache=bench.folder / "again")

    def walk() -> None:
        for path in _files(tree):
            hashlib.sha256(path.read_bytes()).hexdigest()

    def ours() -> None:
        take_snapshot(tree, RULES, cache=bench.folder / "again")

    ((wall, cpu),) = by_turns(timed(ours), timed(walk))
    yield Result("P7", "snapshot again, nothing changed", "SHA-256 walk", Goal(0.3), wall, cpu)


def hashing(bench: Bench) -> Iterator[Result]:
    """P8: the content hash with ignore rules, against azure-ai-ml's."""
    from azure.ai.ml._utils._asset_utils import get_ignore_file, get_object_hash

    tree = bench.tree
    take_snapshot(tree, RULES, cache=bench.folder / "hashing")

    def theirs() -> None:
        get_object_hash(tree, get_ignore_file(tree))

    def first() -> None:
        shutil.rmtree(bench.folder / "first", ignore_errors=True)
        take_snapshot(tree, RULES, cache=bench.folder / "first")

    def unchanged() -> None:
        take_snapshot(tree, RULES, cache=bench.folder / "hashing")

    peer = "azure-ai-ml's hash"
    for ours, name, limit in ((first, "first", 0.3), (unchanged, "unchanged", 0.05)):
        ((wall, cpu),) = by_turns(timed(ours), timed(theirs))
        yield Result(
            f"P8 {name}", f"content hash with ignore rules, {name}", peer, Goal(limit), wall, cpu, lambda: _floor(bench)
        )


def _floor(bench: Bench) -> str:
    """How the time of a first hash is made up."""
    from azure.ai.ml._utils._asset_utils import get_ignore_file, get_object_hash

    tree = bench.tree
    theirs = seconds(lambda: get_object_hash(tree, get_ignore_file(tree)))

    def walk() -> None:
        for path in _files(tree):
            hashlib.sha256(path.read_bytes()).hexdigest()

    def look() -> None:
        for folder, folders, files in os.walk(tree):
            folders[:] = [name for name in folders if name != ".git"]
            for name in files:
                os.lstat(f"{folder}/{name}")

    return (
        f"Of the peer's time, a plain SHA-256 walk without any rule takes {seconds(walk) / theirs:.2f}, our listing by "
        f"the rules {seconds(lambda: list_files(tree, RULES)) / theirs:.3f}, and a plain walk that only looks at each "
        f"file's status {seconds(look) / theirs:.3f}."
    )


def listing(bench: Bench) -> Iterator[Result]:
    """P10: which files belong to the project."""
    tree = bench.tree

    def git() -> None:
        bench.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=tree)

    ((wall, cpu),) = by_turns(timed(lambda: list_files(tree, RULES)), timed(git))
    yield Result("P10", "listing with ignore rules, 20,000 files", "`git ls-files -co`", Goal(2), wall, cpu)


def _files(tree: Path) -> Iterator[Path]:
    """Every file but git's own."""
    for path in tree.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            yield path


CASES = {"P6": packing, "P7": again, "P8": hashing, "P10": listing}
