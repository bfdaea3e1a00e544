"""MLproject files as they are met in the wild, their mistakes, and commands that hand values on verbatim."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_azure_backend.errors import ParameterError, ProjectError
from mlflow_azure_backend.project import (
    Argument,
    DeclaredEnvironment,
    DockerEnvironment,
    EntryPoint,
    EnvironmentKind,
    Parameter,
    ParameterType,
    ProjectSpec,
    bind_parameters,
    find_entry_point,
    load_project,
    render_command,
)


def load(folder: Path, text: str | bytes) -> ProjectSpec:
    (folder / "MLproject").write_bytes(text.encode() if isinstance(text, str) else text)
    return load_project(folder)


def notes_of(spec: ProjectSpec) -> str:
    return "\n".join(str(note) for note in spec.notes)


def main_of(command: str, *parameters: Parameter) -> EntryPoint:
    return EntryPoint("main", parameters, command)


# Loading.


def test_whole_project(tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text("")
    text = """
name: "diabetes: all"
python_env: env.yaml
entry_points:
  main:
    parameters:
      alpha: float
      batch-size: {type: string, default: 32}
      data:
        type: path
        default: data/a b, "c".csv
      where: {type: uri, default: "s3://b/k"}
    command: "python train.py {alpha} {batch-size} {data} {where}"
  other:
    command: python other.py
"""
    spec = load(tmp_path, text)
    parameters = (
        Parameter("alpha", ParameterType.FLOAT, None, 7),
        Parameter("batch-size", ParameterType.STRING, "32", 8),
        Parameter("data", ParameterType.PATH, 'data/a b, "c".csv', 9),
        Parameter("where", ParameterType.URI, "s3://b/k", 12),
    )
    assert spec == ProjectSpec(
        tmp_path,
        tmp_path / "MLproject",
        "diabetes: all",
        (
            EntryPoint("main", parameters, "python train.py {alpha} {batch-size} {data} {where}", 13),
            EntryPoint("other", (), "python other.py", 15),
        ),
        DeclaredEnvironment(EnvironmentKind.PYTHON, tmp_path / "env.yaml", None, 3),
    )


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "null", "{}", "entry_points:", "entry_points: {}", "\ufeffname: x"]
)
def test_project_that_declares_next_to_nothing(tmp_path: Path, text: str) -> None:
    spec = load(tmp_path, text)
    assert spec.entry_points == ()
    assert spec.environment == DeclaredEnvironment()
    assert spec.notes == ()


def test_no_mlproject(tmp_path: Path) -> None:
    assert load_project(tmp_path) == ProjectSpec(tmp_path, None, None, (), DeclaredEnvironment())
    (tmp_path / "MLproject.yaml").write_text("")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "MLproject").write_text("")
    (tmp_path / "mlproject").mkdir()  # a package of that name is no project file
    notes = notes_of(load_project(tmp_path))
    assert "add #inner to the URI" in notes
    assert "mv 'MLproject.yaml' MLproject" in notes


@pytest.mark.parametrize("name", ["MLproject", "mlproject", "MLProject", "MLPROJECT"])
def test_any_case(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("name: x\nwrong: y\n")
    spec = load_project(tmp_path)
    assert (spec.file, spec.name) == (tmp_path / name, "x")
    assert f"{name}:2: " in notes_of(spec)


def test_two_project_files(tmp_path: Path) -> None:
    (tmp_path / "MLPROJECT").write_text("name: x")
    spec = load(tmp_path, "name: y")
    assert spec.name == "y"
    assert "MLPROJECT is not" in notes_of(spec)


def test_merge_keys_and_aliases(tmp_path: Path) -> None:
    text = """
x-common: &common {alpha: float, beta: {default: 1}}
entry_points:
  one: {parameters: *common, command: "{alpha} {beta}"}
  two: {parameters: {<<: *common, alpha: uri}, command: "{alpha} {beta}"}
"""
    one, two = load(tmp_path, text).entry_points
    assert [parameter.type.value for parameter in one.parameters] == ["float", "string"]
    assert {parameter.name: parameter.type.value for parameter in two.parameters} == {"alpha": "uri", "beta": "string"}


@pytest.mark.parametrize(
    ("written", "default"),
    [
        ("true", "True"),
        ("yes", "True"),
        ("0010", "8"),
        ("1e-3", "1e-3"),
        ("1.0e-3", "0.001"),
        ("2021-01-02", "2021-01-02"),
        ("0x10", "16"),
        ("''", ""),
        ("'0010'", "0010"),
        ("None", "None"),
        ("~", None),
        ("null", None),
        ("[a, 1]", "['a', 1]"),
        ("{a: [b]}", "{'a': ['b']}"),
        ('\'{"a": [1, "b"]}\'', '{"a": [1, "b"]}'),
    ],
)
def test_default_is_what_mlflow_makes_of_it(tmp_path: Path, written: str, default: str | None) -> None:
    text = f'entry_points: {{main: {{parameters: {{x: {{default: {written}}}}}, command: "{{x}}"}}}}'
    spec = load(tmp_path, text)
    assert spec.entry_points[0].parameters[0].default == default
    assert ("list or mapping" in notes_of(spec)) == (written[0] in "[{")


# Environments.


@pytest.mark.parametrize(
    ("key", "kind"), [("conda_env", EnvironmentKind.CONDA), ("python_env", EnvironmentKind.PYTHON)]
)
def test_declared_environment_file(tmp_path: Path, key: str, kind: EnvironmentKind) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "my env.yml").write_text("")
    (tmp_path / "python_env.yaml").write_text("")
    spec = load(tmp_path, f"name: x\n{key}: envs/my env.yml\n")
    assert spec.environment == DeclaredEnvironment(kind, tmp_path / "envs" / "my env.yml", None, 2)
    with pytest.raises(ProjectError, match=r"^MLproject:1: .*'envs/my_env.yml'; did you mean 'envs/my env.yml'\?"):
        load(tmp_path, f"{key}: envs/my_env.yml\n")
    with pytest.raises(ProjectError, match=r"MLproject:1: .*'/nowhere/x'"):
        load(tmp_path, f"{key}: /nowhere/x\n")


def test_default_environment_files(tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("")
    assert load_project(tmp_path).environment == DeclaredEnvironment(EnvironmentKind.CONDA, tmp_path / "conda.yaml")
    (tmp_path / "python_env.yaml").write_text("")
    expected = DeclaredEnvironment(EnvironmentKind.PYTHON, tmp_path / "python_env.yaml")
    assert load_project(tmp_path).environment == expected
    spec = load(tmp_path, "conda_env:\n")
    assert spec.environment == expected
    assert "MLproject:1: conda_env is empty" in notes_of(spec)


@pytest.mark.parametrize("name", ["requirements.txt", "environment.yml", "conda.yml", "python_env.yml"])
def test_file_that_mlflow_takes_for_no_environment(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    spec = load(tmp_path, "name: x")
    assert spec.environment.kind is EnvironmentKind.NONE
    assert f"{name}: is no environment to MLflow" in notes_of(spec)


def test_requirements_note_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("")
    step = load_project(tmp_path).notes[0].next_step
    assert step is not None
    subprocess.run(["bash", "-c", step], cwd=tmp_path, check=True)
    assert (tmp_path / "python_env.yaml").read_text() == "dependencies:\n  - -r requirements.txt\n"


def test_docker_environment(tmp_path: Path) -> None:
    text = 'docker_env:\n  image: i\n  volumes: ["/a:/b"]\n  environment: [[A, 1], B]\n  volume: x\n'
    spec = load(tmp_path, text)
    docker = DockerEnvironment("i", ("/a:/b",), (("A", "1"), ("B", None)))
    assert spec.environment == DeclaredEnvironment(EnvironmentKind.DOCKER, None, docker, 1)
    assert "MLproject:5: the key 'volume' of docker_env is unknown and ignored; did you mean 'volumes'?" in notes_of(
        spec
    )


# Mistakes.


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("- a\n- b", "MLproject:1", "an MLproject must be a mapping"),
        ("just text", "MLproject:1", "an MLproject must be a mapping"),
        ("name: [x\nb: c", "MLproject:2", "is no valid YAML"),
        ("name: x\n\tb: c", "MLproject:2", "not with tabs"),
        ("a: b: c", "MLproject:1", "in quotes"),
        ("a: *b", "MLproject:1", "undefined alias"),
        ("name: !!python/object:os.system x", "MLproject:1", "could not determine a constructor"),
        ("name: x\n---\nname: y", "MLproject:2", "another document"),
        (b"name: x\nname2: \xff", "MLproject:2", "is not UTF-8"),
        (b"name: x\nname2: \x01", "MLproject:2", "does not allow: '\\x01'"),
        ("name: x\n? [a]\n: b", "MLproject:2", "a key that is no text"),
        ("name: x\ndatabricks_spark_job: {python_file: x}", "MLproject:2", "--backend databricks"),
        ("conda_env: a\npython_env: b", "MLproject:2", "keep one of: conda_env, python_env"),
        ("conda_env: {a: b}", "MLproject:1", "conda_env must name a file"),
        ('conda_env: "a\\0b"', "MLproject:1", "there is no environment file"),
        ("docker_env: image", "MLproject:1", "docker_env must be a mapping"),
        ("docker_env: {volumes: []}", "MLproject:1", "add image: NAME"),
        ("docker_env:\n  image: x\n  volumes: a:b", "MLproject:3", "volumes"),
        (
            "docker_env:\n  image: x\n  build_context: ../x",
            "MLproject:3",
            "build_context must name something in the project",
        ),
        ("docker_env:\n  image: x\n  dockerfile: []", "MLproject:3", "write dockerfile: Dockerfile"),
        ("docker_env:\n  image: x\n  environment: {a: b}", "MLproject:3", "environment"),
        ("docker_env:\n  image: x\n  environment: [[a]]", "MLproject:3", "environment"),
        ("entry_points: [main]", "MLproject:1", "entry_points must be a mapping"),
        ("entry_points:\n  main: python x.py", "MLproject:2", 'write main: {command: "…"}'),
        ("entry_points:\n  main: [a]", "MLproject:2", "must be a mapping"),
        ("entry_points:\n  main:\n    parameters: [a]", "MLproject:3", "must be a mapping"),
        ("entry_points: {main: {parameters: {\n a: 0.5}}}", "MLproject:2", "write a: {type: float, default: …}"),
        ("entry_points: {main: {parameters: {\n a: }}}", "MLproject:2", "must be a type or hold one"),
        ("entry_points: {main: {parameters: {a: {\n default: 2021-99-99}}}}", "MLproject:2", "put it in quotes"),
        (f"entry_points: {{main: {{parameters: {{a: {{default: 0x{'F' * 9000}}}}}}}}}", "MLproject:1", "in quotes"),
        ("entry_points: {main: {parameters: {<<: x}}}", "MLproject:1", "expected a mapping"),
    ],
)
def test_mistake_that_ends_it(tmp_path: Path, text: str | bytes, where: str, what: str) -> None:
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, text)
    assert caught.value.where == where
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Environment: System", "MLproject:1: the key 'Environment' is unknown and ignored; name an environment file"),
        ("entrypoints: {}", "MLproject:1: the key 'entrypoints' is unknown and ignored; did you mean 'entry_points'?"),
        ("Conda_Env: x", "did you mean 'conda_env'?"),
        ("zzz: x", "valid here: name, entry_points, conda_env, python_env, docker_env"),
        ("main: {command: x}", "move 'main' under 'entry_points'"),
        ("command: x", "move 'command' into an entry point"),
        ("name: a\nname: b", "MLproject:2: the key 'name' stands here again: line 1 is ignored"),
        ("entry_points: {main: {command: x, comand: y}}", "did you mean 'command'?"),
        (
            "entry_points: {main: {command: x,\n alpha: float}}",
            "MLproject:2: the key 'alpha' in the entry point 'main'",
        ),
        ("entry_points: {main: {command: x, alpha: float}}", "move 'alpha' under 'parameters'"),
        ("entry_points: {main: {command: x, alpha: {default: 1}}}", "move 'alpha' under 'parameters'"),
        (
            "entry_points: {main: {command: '{a}', parameters: {a: {type path, default x}}}}",
            "did you mean 'type: path'?",
        ),
        ("entry_points: {main: {command: '{a}', parameters: {a: {typ: path}}}}", "did you mean 'type'?"),
        (
            "entry_points: {main: {command: '{a}', parameters: {a: int}}}",
            "the type 'int' of the parameter 'a' is unknown",
        ),
        ("entry_points: {main: {command: '{a}', parameters: {a: {type: Path}}}}", "use string, float, path, uri"),
        ("entry_points: {main: {command: '{a}', parameters: {a: {type: null}}}}", "the type 'None'"),
        ("entry_points: {main: {command: '{a}', parameters: {a: {type: float, default: x}}}}", "is no number: 'x'"),
        ("entry_points: {main: {command: 'x', parameters: {\n a: float}}}", "MLproject:2: the parameter 'a' never"),
    ],
)
def test_mistake_that_mlflow_accepts(tmp_path: Path, text: str, note: str) -> None:
    assert note in notes_of(load(tmp_path, text))


def test_no_note_on_a_sound_project(tmp_path: Path) -> None:
    text = "name: x\nentry_points: {main: {parameters: {a: {type: float, default: 1}}, command: 'x {a}'}}"
    assert load(tmp_path, text).notes == ()


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("", "has no command"),
        ("{}", "has no command"),
        ("{parameters: null}", "has no command"),
        ("{command: }", "has no command"),
        ("{command: ' '}", "has no command"),
        ("{command: [a]}", "has no command"),
        ("{command: 'x {alhpa}', parameters: {alpha: float}}", "did you mean {alpha}?"),
        ("{command: 'x {beta}'}", "names {beta}, which is no declared parameter; declare it"),
        ("{command: 'x {}'}", "names {}, which"),
        ("{command: 'x {0}', parameters: {a: float}}", "names {0}, which"),
        ("{command: 'x {a.b} {a[0]}', parameters: {a: float}}", "names {a.b}, which"),
        ("{command: 'x {a[0]}', parameters: {a: float}}", "names {a[0]}, which"),
        ("{command: 'x { a }', parameters: {a: float}}", "did you mean {a}?"),
        ("{command: 'x {a', parameters: {a: float}}", "braces do not match"),
        ("{command: 'x }', parameters: {a: float}}", "write {{ and }}"),
        ("{command: 'echo ${HOME}'}", "{HOME}"),
        ("{command: 'x ${a}', parameters: {a: float}}", "write {a} for the parameter, ${{a}} for a shell variable"),
        ("{command: 'x {a:.2f}', parameters: {a: float}}", "the format '.2f'"),
        ("{command: 'x {a:99999999999}', parameters: {a: float}}", "is not for texts"),
        ("{command: 'x {a:{a}}', parameters: {a: float}}", "is not for texts"),
    ],
)
def test_entry_point_that_cannot_run_spares_the_others(tmp_path: Path, entry: str, what: str) -> None:
    spec = load(tmp_path, f"entry_points:\n  good: {{command: x}}\n  bad: {entry}\n")
    assert find_entry_point(spec, "good").command == "x"
    with pytest.raises(ProjectError) as caught:
        find_entry_point(spec, "bad")
    assert caught.value.where == "MLproject:3"
    assert what in str(caught.value)
    assert what in notes_of(spec)


# Files that are made to hurt (row 39). A time or a size would say little on a shared machine; that they end says much.


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {k: v}\n"
        + "".join(
            f"{b}: &{b} {{<<: [{','.join([f'*{a}'] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        "a: &a [*a]",
        "[" * 500_000,
        "{a: " * 200_000,
        "- " * 500_000,
        "a: &a [[[[[[[[[[b]]]]]]]]]]\nc: &c [[[[[[[[[[*a]]]]]]]]]]\nd: &d [[[[[[[[[[*c]]]]]]]]]]\n"
        "e: &e [[[[[[[[[[*d]]]]]]]]]]\nf: [[[[[[[[[[*e]]]]]]]]]]",
        "a: [" + "x," * 100_000 + "]",
        "a: &a " + "x" * 900_000 + "\nb: [*a, *a, *a]",
    ],
    ids=["laughs", "merges", "itself", "brackets", "braces", "dashes", "deep aliases", "nodes", "long text"],
)
def test_bomb(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProjectError, match=r"nested too deeply or too large|holds itself"):
        load(tmp_path, text)


def test_file_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="larger than 1 MB"):
        load(tmp_path, "#" * ((1 << 20) + 1))


def test_large_project_that_is_sound(tmp_path: Path) -> None:
    entries = "".join(
        f"  e{n}: {{parameters: {{a: float, b: {{type: path, default: {n}}}}}, command: 'x {{a}} {{b}}'}}\n"
        for n in range(500)
    )
    assert len(load(tmp_path, f"entry_points:\n{entries}").entry_points) == 500


def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="cannot be read"):
        load_project(tmp_path / "gone")


# Entry points.


def test_declared_entry_point_comes_before_a_script(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("")
    spec = load(tmp_path, "entry_points: {x.py: {command: mine}}")
    assert find_entry_point(spec, "x.py").command == "mine"


@pytest.mark.parametrize(
    ("name", "shell", "argv"),
    [
        ("train.py", None, ["python", "train.py"]),
        ("./train.py", None, ["python", "train.py"]),
        ("sub dir/'q' {x}.py", None, ["python", "sub dir/'q' {x}.py"]),
        ("-x.py", None, ["python", "./-x.py"]),
        ("run.sh", None, ["bash", "run.sh"]),
        ("run.sh", "", ["bash", "run.sh"]),
        ("run.sh", "/opt/my shell", ["/opt/my shell", "run.sh"]),
        ("a'b\"c\\.R", None, ["Rscript", "-e", 'mlflow::mlflow_source("a\'b\\"c\\\\.R")', "--args"]),
    ],
)
def test_script_as_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shell: str | None, argv: list[str]
) -> None:
    monkeypatch.delenv("SHELL", raising=False)
    if shell is not None:
        monkeypatch.setenv("SHELL", shell)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    entry_point = find_entry_point(load_project(tmp_path), name)
    assert (entry_point.name, entry_point.parameters) == (name, ())
    arguments = bind_parameters(entry_point, {"a b": "c d"}, client_folder=tmp_path)
    command = f"set -- {render_command(entry_point, arguments)}\nprintf '%s\\0' start \"$@\""
    assert run(command, tmp_path) == [*argv, "--a b", "c d"]


def test_absolute_script_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    assert find_entry_point(load_project(tmp_path), str(tmp_path / "train.py")).command == "python train.py"


@pytest.mark.parametrize("name", ["main", "tran", "", "../x.py", "gone.py", "notes.txt", "a\0.py", "/etc/x.py", "d.py"])
def test_no_such_entry_point(tmp_path: Path, name: str) -> None:
    (tmp_path / "p").mkdir()
    for path in ("x.py", "p/prepare.py", "p/notes.txt"):
        (tmp_path / path).write_text("")
    (tmp_path / "p" / "d.py").mkdir()
    spec = load(tmp_path / "p", "entry_points: {train: {command: x}, evaluate: {command: x}}")
    with pytest.raises(ProjectError, match=r"There are: train, evaluate, prepare\.py") as caught:
        find_entry_point(spec, name)
    assert name != "tran" or "did you mean -e train?" in str(caught.value)


def test_no_entry_point_at_all(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="there is no entry point 'main'; write an MLproject that has one"):
        find_entry_point(load_project(tmp_path), "main")


# Parameters.


def test_values_of_every_type(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    point = main_of(
        "x",
        Parameter("f", ParameterType.FLOAT),
        Parameter("s"),
        Parameter("p", ParameterType.PATH),
        Parameter("r", ParameterType.PATH, "runs:/1/m"),
        Parameter("u", ParameterType.URI, "file:/x"),
    )
    arguments = bind_parameters(point, {"new": None, "s": True, "f": 1e-5, "p": "./d/", "z": 3}, client_folder=tmp_path)
    assert arguments == (
        Argument("f", ParameterType.FLOAT, "1e-05", "1e-05", declared=True),
        Argument("s", ParameterType.STRING, "True", "True", declared=True),
        Argument("p", ParameterType.PATH, "./d/", str(tmp_path / "d"), declared=True),
        Argument("r", ParameterType.PATH, "runs:/1/m", "runs:/1/m", declared=True),
        Argument("u", ParameterType.URI, "file:/x", "file:/x", declared=True),
        Argument("new", ParameterType.STRING, "None", "None", declared=False),
        Argument("z", ParameterType.STRING, "3", "3", declared=False),
    )


def test_every_problem_at_once(tmp_path: Path) -> None:
    point = main_of(
        "x",
        Parameter("a"),
        Parameter("b b", ParameterType.FLOAT),
        Parameter("c", ParameterType.FLOAT),
        Parameter("d", ParameterType.PATH),
        Parameter("e", ParameterType.URI),
        Parameter("f"),
        Parameter("g", ParameterType.PATH, "x" * 5000),
        Parameter("h", ParameterType.URI),
    )
    given = {"c": "1,5", "d": "gone", "e": "a/b c", "f": "x\0y", "g\0": "", "h": "http://["}
    with pytest.raises(ParameterError) as caught:
        bind_parameters(point, given, client_folder=tmp_path)
    message = str(caught.value)
    for part in (
        "no value is given for 'a' (string), 'b b' (float); add -P a=VALUE -P 'b b=VALUE'",
        "'c' must be a number, not '1,5'",
        "'d' names a path that does not exist: 'gone'",
        f"'e' must be a URI, not 'a/b c'; a local file is {(tmp_path / 'a/b c').as_uri()}",
        "'f' holds a NUL byte",
        "'g' names a path",
        "'h' must be a URI",
        "(8)",
    ):
        assert part in message


@pytest.mark.parametrize("text", ["1", "-1.5e-3", "nan", "inf", " 2 "])
def test_numbers(tmp_path: Path, text: str) -> None:
    (argument,) = bind_parameters(
        main_of("x", Parameter("f", ParameterType.FLOAT)), {"f": text}, client_folder=tmp_path
    )
    assert argument.value == text


def test_default_that_means_nothing(tmp_path: Path) -> None:
    point = main_of("x", Parameter("f", ParameterType.FLOAT, "None"), Parameter("p", ParameterType.PATH, ""))
    for given in ({}, {"f": "None", "p": ""}):
        assert [one.value for one in bind_parameters(point, given, client_folder=tmp_path)] == ["None", ""]
    with pytest.raises(ParameterError, match="'p' names a path that does not exist: ''"):
        bind_parameters(main_of("x", Parameter("p", ParameterType.PATH)), {"p": ""}, client_folder=tmp_path)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, project = tmp_path / "client", tmp_path / "project"
    for path in (client / "both", client / "a b", client / "lit%20eral", project / "both", project / "only here"):
        path.mkdir(parents=True)
    point = main_of("x", Parameter("p", ParameterType.PATH))

    def bound(text: str, default: bool = False) -> Argument:
        entry_point = replace(point, parameters=(replace(point.parameters[0], default=text),)) if default else point
        given = {} if default else {"p": text}
        return bind_parameters(entry_point, given, client_folder=client, project_folder=project)[0]

    assert bound("both").value == str(client / "both")
    assert bound("../client/both").value == str(client / "both")
    assert bound(str(project / "both")).value == str(project / "both")
    assert bound("a%20b").value == str(client / "a b")  # MLflow decodes it
    assert bound("lit%20eral").value == str(client / "lit%20eral")
    assert bound(f"file://{client}/a%20b").value == str(client / "a b")
    assert bound("s3://b/k").value == "s3://b/k"
    assert bound("file://host/x").value == "file://host/x"
    assert bound("both", default=True) == bound("both")
    found = bound("only here", default=True)
    assert (found.given, found.value) == ("only here", str(project / "only here"))
    assert "is taken from the project's folder" in str(found.note)
    with pytest.raises(ParameterError, match=r"the project has it: -P 'p=.*/project/only here'"):
        bound("only here")
    with pytest.raises(ParameterError, match=f"looked in {client} and {project}"):
        bound("nowhere", default=True)
    monkeypatch.chdir(tmp_path)
    assert bind_parameters(point, {"p": "both"}, client_folder=Path("client"))[0].value == str(client / "both")


def test_undeclared_parameter_that_looks_like_a_slip(tmp_path: Path) -> None:
    point = main_of("x", Parameter("batch-size", default="1"), Parameter("alpha", default="1"))

    def note(*names: str) -> str:
        return str(bind_parameters(point, dict.fromkeys(names, "1"), client_folder=tmp_path)[-1].note)

    assert "did you mean -P alpha=…?" in note("alhpa")
    assert "did you mean -P batch-size=…?" in note("Batch_Size")
    assert note("gamma") == "None"
    assert note("alpha", "alphas") == "None"


def test_secret_argument_does_not_show(tmp_path: Path) -> None:
    argument = Argument("a", ParameterType.STRING, "canary", "canary", declared=True, is_secret=True)
    assert "canary" not in repr(argument)
    assert "canary" not in repr((argument,))
    assert "canary" in repr(replace(argument, is_secret=False))


# Commands, run by a real shell.

HOSTILE = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb\n",
    "\n",
    "'",
    '"',
    "'\"'\"'",
    "\\",
    "\\'",
    "\\n$HOME\\",
    "${HOME}",
    "$'x'",
    "ü ☃ 𝄞",
    "--help",
    "-",
    "*",
    "?[a-z]~",
    "~/x",
    "",
    " ",
    "a,b",
    "{a,b}",
    "{0}",
    "{{x}}",
    "x=1",
    "!!",
    "# no comment",
    "&& touch pwned #",
    '{"a": [1, "b c"]}',
    "if",
    "2",
    "a\tb",
    os.fsdecode(b"\xff"),
]


def run(command: str, folder: Path) -> list[str]:
    """The words that the shell's programs printed after ``start``; nothing else may have happened."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, check=True, capture_output=True, timeout=60)
    assert not (folder / "pwned").exists()
    words = os.fsdecode(done.stdout).split("\0")
    assert (words[0], words[-1]) == ("start", "")
    return words[1:-1]


def rendered(template: str, value: str, undeclared: dict[str, str] | None = None) -> str:
    arguments = [Argument("x-y", ParameterType.STRING, value, value, declared=True)]
    for name, text in (undeclared or {}).items():
        arguments.append(Argument(name, ParameterType.STRING, text, text, declared=False))
    return render_command(main_of(template, Parameter("x-y")), arguments)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{x-y}", ["{}"]),
        ("a {x-y} b", ["a", "{}", "b"]),
        ("{x-y}{x-y}", ["{}{}"]),
        ("--k={x-y}", ["--k={}"]),
        ("'{x-y}'", ["{}"]),
        ('"{x-y}"', ["{}"]),
        ("'a {x-y} b' \"a {x-y} b\"", ["a {} b", "a {} b"]),
        ('"it\'s {x-y}"', ["it's {}"]),
        ("'say \"{x-y}\"'", ['say "{}"']),
        (r"""a\ b\'{x-y}\" """, ["a b'{}\""]),
        (r'"\"{x-y}\""', ['"{}"']),
        (r"'\'{x-y}", ["\\{}"]),
        ("$'a\\'b {x-y} c'", ["a'b {} c"]),
        ('$"{x-y}"', ["{}"]),
        ("\"$(printf '%s.' {x-y})\"", ["{}."]),
        ('"$(printf \'%s.\' "{x-y}")" {x-y}', ["{}.", "{}"]),
        ("\"$(printf '%s.' '{x-y}' )\"", ["{}."]),
        ("\"$( (printf '%s.' {x-y}) )\"", ["{}."]),
        ('"${{NONE:-a}}{x-y}"', ["a{}"]),
        ("${{NONE}}{x-y}", ["{}"]),
        ('"${{NONE:-$(printf "%s." {x-y})}}"', ["{}."]),
        ("$NONE{x-y}", ["{}"]),
        ('"$NONE{x-y}"', ["{}"]),
        ("$((1 + 2)){x-y}", ["3{}"]),
        ('`echo "it\'s"` {x-y}', ["it's", "{}"]),
        ('"`echo \\"it\'s\\"`" {x-y}', ["it's", "{}"]),
        ("{{a,{x-y}}}", ["a", "{}"]),
        ("{x-y}>&1", ["{}"]),
        ("a # it's a comment\nprintf '%s\\0' {x-y}", ["a", "{}"]),
        ("a#'b' $# {x-y}", ["a#b", "0", "{}"]),
        ('<<< "it\'s" {x-y}', ["{}"]),
        ("<(:) {x-y} >/dev/null; printf '%s\\0' start {x-y}", ["{}"]),
        ("a <<EOF\nit's \"{{}}\nEOF\nprintf '%s\\0' {x-y}", ["a", "{}"]),
        ("a <<-'E F' <<\\X\nit's\n\tE F\n\" `\nX\nprintf '%s\\0' {x-y}", ["a", "{}"]),
        ("a \\\n {x-y}", ["a", "{}"]),
        ("{x-y!r} {x-y:s} {x-y!s:>0}", ["{}", "{}", "{}"]),
        ("a; case a in b) ;; a) printf '%s\\0' {x-y};; esac", ["a", "{}"]),
        ("a; for i in {x-y}; do printf '%s\\0' \"$i\" {x-y}; done", ["a", "{}", "{}"]),
        ("a; [[ {x-y} == \"{x-y}\" ]] && printf '%s\\0' '{x-y}'", ["a", "{}"]),
        ("a; (( 1 < 2 )) && printf '%s\\0' {x-y}", ["a", "{}"]),
        ("a; V={x-y}; printf '%s\\0' \"$V\"", ["a", "{}"]),
        ("a; f() {{ printf '%s\\0' \"$@\" {x-y}; }}; f {x-y}", ["a", "{}", "{}"]),
    ],
)
def test_program_gets_every_value_verbatim(tmp_path: Path, template: str, expected: list[str]) -> None:
    (tmp_path / "a file for globs").touch()
    for value in HOSTILE:
        command = rendered("printf '%s\\0' start " + template, value)
        assert run(command, tmp_path) == [word.replace("{}", value) for word in expected], command
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("value", HOSTILE)
def test_undeclared_parameters_are_appended(tmp_path: Path, value: str) -> None:
    for template in ("printf '%s\\0' start {x-y}", "printf '%s\\0' start {x-y}\n\n", "printf '%s\\0' start {x-y} \\\n"):
        command = rendered(template, value, {"k": value, f"o{value}": "v"})
        assert run(command, tmp_path) == [value, "--k", value, f"--o{value}", "v"]


@pytest.mark.parametrize(
    "template",
    [
        "echo `echo {x-y}`",
        'echo "`echo {x-y}`"',
        "echo $(( {x-y} + 1 ))",
        "echo $[ {x-y} + 1 ]",
        "(( {x-y} + 1 ))",
        'echo "${{NONE:-{x-y}}}"',
        'echo "${{NONE:-it\'s}}" {x-y}',
        "echo \\{x-y}",
        'echo "\\{x-y}"',
        "echo # {x-y}",
        "cat <<EOF\n{x-y}\nEOF",
        "cat <<'EOF'\nEO{x-y}\nEOF",
        "echo $(case a in a) echo {x-y};; esac)",
        "cat <<{x-y}",
    ],
)
def test_value_where_nothing_can_be_quoted(tmp_path: Path, template: str) -> None:
    """A value that needs no quotes goes in as it is; every other one is refused rather than handed to the shell."""
    assert rendered(template, "42") == template.replace("{x-y}", "42").replace("{{", "{").replace("}}", "}")
    for value in HOSTILE:
        if value not in ("--help", "-", "a,b", "x=1", "if", "2"):
            with pytest.raises(ParameterError, match="'x-y' cannot be quoted where its placeholder stands"):
                rendered(template, value)


def test_plain_values_stay_readable() -> None:
    assert (
        rendered("python train.py --alpha {x-y} '{x-y}' \"{x-y}\"", "0.3")
        == "python train.py --alpha 0.3 '0.3' \"0.3\""
    )
    assert rendered("python a.py", "1", {"b": "0.3"}) == "python a.py --b 0.3"


@pytest.mark.parametrize("template", ["a # comment", "a 'b", 'a "b', "a <<X\nb\nX", "a \\"])
def test_command_that_nothing_can_be_appended_to(template: str) -> None:
    assert rendered(template, "") == template
    with pytest.raises(ProjectError, match="so k would be lost; declare k"):
        rendered(template, "", {"k": "v"})


def test_values_in_place_of_the_arguments_own() -> None:
    arguments = [
        Argument("p", ParameterType.PATH, "d", "/client/d", declared=True),
        Argument("q", ParameterType.STRING, "e", "e", declared=False),
    ]
    command = render_command(main_of("x {p}", Parameter("p")), arguments, {"p": "/mnt/a b", "q": "f"})
    assert command == "x '/mnt/a b' --q f"


def test_template_of_no_file_is_checked_too() -> None:
    with pytest.raises(ProjectError, match=r"entry point 'main': the command names \{y\}"):
        render_command(main_of("x {y}"), [])


def test_format_of_a_text() -> None:
    assert rendered("a {x-y:0>5} {x-y:.1}", "42") == "a 00042 4"


def test_parameter_with_a_dot_in_its_name(tmp_path: Path) -> None:
    spec = load(tmp_path, "entry_points: {main: {command: 'x {a.b} {c[0]}', parameters: {a.b: float, 'c[0]': float}}}")
    point = find_entry_point(spec, "main")
    assert render_command(point, bind_parameters(point, {"a.b": 1, "c[0]": 2}, client_folder=tmp_path)) == "x 1 2"
