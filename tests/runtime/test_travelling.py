"""The zip that travels: the same for the same version, readable by old Pythons, and sealed."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mlflow_azure_backend.runtime.order import JobOrder, LockedEnvironment, from_json
from mlflow_azure_backend.workspace.travelling import job_command, runtime_zip
from tests.runtime.conftest import Node


def test_the_zip_is_the_same_for_whoever_makes_it(tmp_path: Path) -> None:
    code = "import sys; from mlflow_azure_backend.workspace.travelling import runtime_zip as z; sys.stdout.buffer.write(z())"
    again = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=tmp_path, env={"TZ": "Asia/Tokyo"}
    )
    assert again.stdout == runtime_zip()


def newer_in(tree: ast.AST) -> Iterator[ast.expr]:
    """What only newer Pythons evaluate: generics of the standard library outside of annotations, a few methods."""
    annotations = {
        id(below)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        for below in ast.walk(getattr(node, name, None) or ast.Pass())
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and id(node) not in annotations:
            if node.value.id in {
                "Callable",
                "Mapping",
                "Sequence",
                "Iterator",
                "Iterable",
                "dict",
                "list",
                "tuple",
                "set",
            }:
                yield node
        elif (isinstance(node, ast.Attribute) and node.attr in {"removeprefix", "removesuffix", "is_relative_to"}) or (
            isinstance(node, ast.Call) and any(word.arg in {"strict"} for word in node.keywords)
        ):
            yield node


def test_all_that_runs_on_the_image_s_python_is_written_for_python_3_8() -> None:
    with zipfile.ZipFile(io.BytesIO(runtime_zip())) as archive:
        modules = [name for name in archive.namelist() if name.endswith(".py")]
        for name in modules:
            tree = ast.parse(archive.read(name), name, feature_version=(3, 8))
            if not name.endswith("installing.py"):  # it needs py-rattler, which needs 3.10
                assert [f"{name}:{node.lineno}: {ast.unparse(node)}" for node in newer_in(tree)] == []
        assert {"__main__.py", "mlflow_azure_runtime/job.py", "mlflow_azure_runtime/installing.py"} <= set(modules)


def test_the_zip_needs_nothing_of_this_package(node: Node) -> None:
    code = "import mlflow_azure_runtime.job, sys; print([m for m in sys.modules if m.startswith('mlflow_azure_b')])"
    done = node.run(f'python3 -c "{code}"')
    assert (done.code, done.out) == (0, "[]\n")


def test_an_order_is_read_as_it_was_written() -> None:
    environment = LockedEnvironment("ab", "conda", "conda-lock.yml", {"uv": "1"}, kept_in="kept")
    order = JobOrder(environment, variables={"A": "it's \u2603"}, renamed={"B": "C"}, attempt=2)
    assert from_json(order.to_json()) == order
    assert from_json(JobOrder().to_json()) == JobOrder()


def test_the_job_s_command_shows_the_project_s() -> None:
    assert job_command("python train.py --data ${{inputs.data}}") == (
        "python3 -I .mlflow-azure/runtime.zip 'python train.py --data ${{inputs.data}}'"
    )
