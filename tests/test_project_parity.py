"""One MLproject, read by MLflow's own code and by ours: wherever MLflow's works, the program gets the same."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow.projects import _project_spec

from mlflow_azure_backend.project import bind_parameters, find_entry_point, load_project, render_command

PRINT = "printf '%s\\0'"


def argv(command: str, folder: Path) -> list[str] | None:
    """What the program was given; None when the shell or the program failed."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, timeout=60)
    return os.fsdecode(done.stdout).split("\0") if done.returncode == 0 else None


def entry(command: str, parameters: str = "{}") -> str:
    """An MLproject with one entry point; the command is a block, so that nothing in it is YAML."""
    lines = "\n".join(f"      {line}" for line in command.split("\n"))
    return f"entry_points:\n  main:\n    parameters: {parameters}\n    command: |-\n{lines}\n"


@pytest.mark.parametrize(
    ("text", "params"),
    [
        (entry(f"{PRINT} a"), {}),
        (entry(f"{PRINT} a"), {"extra": "1", "more": "a b; c 'd' \"e\" $f `g` *", "k e'y": ""}),
        (entry(f"{PRINT} {{a}} {{batch-size}}", "{a: float, batch-size: {default: 32}}"), {"a": "0.5"}),
        (entry(f"{PRINT} {{a}} {{a}}", "{a: float}"), {"a": 1e-5}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": "a b"}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": 'it\'s "$(x)" `y` \\n ; & | < > * ? ~ # é\nz'}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": ""}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": None}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": True}),
        (entry(f"{PRINT} {{a}}", "{a: string}"), {"a": [1, "b c"]}),
        (entry(f"{PRINT} {{a}}", "{a: {default: \"x, y 'z'\"}}"), {}),
        (entry(f"{PRINT} {{a}}", '{a: {default: \'{"k": [1, "v w"]}\'}}'), {}),
        *[
            (entry(f"{PRINT} {{a}}", f"{{a: {{type: {kind}, default: {default}}}}}"), {})
            for kind in ("string", "float", "int")
            for default in (
                "1",
                "1e-3",
                "1.0e-3",
                "0010",
                "true",
                "yes",
                "2021-01-02",
                "None",
                "''",
                "[a, 1]",
                "{b: c}",
            )
        ],
        (entry(f"{PRINT} '{{a}}' \"{{a}}\" x'{{a}}'y", "{a: float}"), {"a": "0.5"}),
        (entry(f"{PRINT} --k={{a}} {{a}}{{a}} {{a!r}} {{a:s}} {{a!s}} {{a:0>5}}", "{a: float}"), {"a": "42"}),
        (entry(f"{PRINT} ${{{{NONE:-b}}}} {{{{a}}}} {{a}}", "{a: float}"), {"a": "42"}),
        (
            entry(f'{PRINT} $(echo {{a}}) `echo {{a}}` $(( {{a}} + 1 )) "${{{{NONE:-{{a}}}}}}"', "{a: float}"),
            {"a": "42"},
        ),
        (entry(f"cat <<EOF\nalpha: {{a}}\nEOF\n{PRINT} {{a}} # {{a}}", "{a: float}"), {"a": "42"}),
        (entry(f"{PRINT} {{a}} \\\n  b && {PRINT} {{a}}", "{a: float}"), {"a": "42", "c": "d e"}),
        (entry(f"{PRINT} {{p}}", "{p: path}"), {"p": "data"}),
        (entry(f"{PRINT} {{p}}", "{p: path}"), {"p": "./data/../data//"}),
        (entry(f"{PRINT} {{p}}", "{p: path}"), {"p": "a%20b"}),
        (entry(f"{PRINT} {{p}}", "{p: {type: path, default: data/x.csv}}"), {}),
        (entry(f"{PRINT} {{p}}", "{p: path}"), {"p": "a b"}),
        (entry(f"{PRINT} {{u}}", "{u: uri}"), {"u": "s3://bucket/k e'y"}),
        (entry(f"{PRINT} {{u}}", "{u: {type: uri, default: file:/x}}"), {}),
        (entry(f"{PRINT} {{a}}", "{a: {type: Path}}"), {"a": "not there"}),
        ("entry_points: {main: {command: printf %s x}}", {}),
        ("entry_points: {main: {command: 'printf %s {{}}'}}", {"x": "1"}),
        (
            "x: &p {a: float, b: {default: 2}}\n"
            "entry_points: {main: {parameters: {<<: *p, a: string}, command: 'printf \"%s \" {a} {b}'}}",
            {"a": "c d"},
        ),
        ("a: b\nEnvironment: System\nentry_points: {main: {command: printf %s x, alpha: float}}", {"alpha": "1"}),
    ],
)
def test_program_gets_what_it_gets_from_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, params: dict[str, Any]
) -> None:
    for path in ("data", "a b", "storage"):
        (tmp_path / path).mkdir()
    (tmp_path / "data" / "x.csv").write_text("")
    (tmp_path / "MLproject").write_text(text)
    monkeypatch.chdir(tmp_path)
    theirs = _project_spec.load_project(str(tmp_path)).get_entry_point("main")
    ours = find_entry_point(load_project(tmp_path), "main")
    arguments = bind_parameters(ours, params, client_folder=tmp_path)
    their_command = theirs.compute_command(params, str(tmp_path / "storage"))
    expected = argv(their_command, tmp_path)
    assert expected is not None
    assert argv(render_command(ours, arguments), tmp_path) == expected
    logged, extra = theirs.compute_parameters(params, None)
    words = {name: shlex.split(value) for name, value in (logged | extra).items()}
    assert {shlex.quote(one.name) if not one.declared else one.name: [one.given] for one in arguments} == words


@pytest.mark.parametrize("name", ["train.py", "run.sh", "it's {x}.py", "sub/train.py"])
def test_script_runs_as_in_mlflow(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_text("")
    theirs = _project_spec.load_project(str(tmp_path)).get_entry_point(name)
    ours = find_entry_point(load_project(tmp_path), name)
    expected = theirs.command  # MLflow formats it, and fails on braces
    params = {"alpha": "a b"}
    rendered = render_command(ours, bind_parameters(ours, params, client_folder=tmp_path))
    assert shlex.split(rendered) == [*shlex.split(expected), "--alpha", "a b"]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], ""),
        ([], "name: x"),
        (["python_env.yaml", "conda.yaml"], "name: x"),
        (["conda.yaml"], "name: x"),
        (["conda.yaml"], None),
        (["requirements.txt"], None),
        (["sub/e.yaml", "python_env.yaml"], "conda_env: sub/e.yaml"),
        (["e.yaml", "conda.yaml"], "python_env: ./e.yaml"),
        (["conda.yaml"], "python_env:"),
        (["conda.yaml"], "docker_env: {}"),
        (["conda.yaml"], "docker_env: {image: i, volumes: ['/a:/b'], environment: [[A, b], C]}"),
    ],
)
def test_environment_is_mlflows(tmp_path: Path, files: list[str], text: str | None) -> None:
    (tmp_path / "sub").mkdir()
    for file in files:
        (tmp_path / file).write_text("")
    if text is not None:
        (tmp_path / "mlPROJECT").write_text(text or "{}")  # MLflow fails on an empty file
    theirs = _project_spec.load_project(str(tmp_path))
    ours = load_project(tmp_path)
    environment = ours.environment
    assert ours.name == theirs.name
    assert (None if theirs.env_config_path is None else Path(theirs.env_config_path)) == environment.path
    if theirs.docker_env is not None:
        assert environment.docker is not None
        assert environment.docker.image == theirs.docker_env["image"]
    elif theirs.env_config_path is not None:
        assert environment.kind.value == theirs.env_type
    else:
        assert environment.kind.value == "none"  # MLflow says python_env, and means an empty one


@pytest.mark.parametrize(
    ("value", "template"),
    [("a b", "'{a}'"), ("a b", '"{a}"'), ("it's", '"{a}"'), ("$(echo x)", '"{a}"'), ("a b", "{a}>&1")],
)
def test_where_mlflow_breaks_the_value(tmp_path: Path, value: str, template: str) -> None:
    """mlflow#6811 and #12475: quotes round a placeholder; the last case has none, and works in both."""
    (tmp_path / "MLproject").write_text(entry(f"{PRINT} {template}", "{a: string}"))
    theirs = _project_spec.load_project(str(tmp_path)).get_entry_point("main").compute_command({"a": value}, None)
    ours = find_entry_point(load_project(tmp_path), "main")
    command = render_command(ours, bind_parameters(ours, {"a": value}, client_folder=tmp_path))
    assert argv(command, tmp_path) == [value, ""]
    assert (argv(theirs, tmp_path) == [value, ""]) == template.endswith(">&1")
