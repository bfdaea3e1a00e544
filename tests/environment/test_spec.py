"""What a project wants: chosen as MLflow chooses, followed to the last file, mistakes named with their line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_azure_backend.environment.spec import Declared, EnvironmentSpec, read_environment
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    ReadProject = Callable[..., EnvironmentSpec]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read_python(folder: Path, text: str, env_manager: str | None = "uv") -> EnvironmentSpec:
    write(folder, {"python_env.yaml": text})
    path = folder / "python_env.yaml"
    return read_environment("python_env", path, folder=folder, env_manager=env_manager, current=False)


def read_conda(folder: Path, text: str) -> EnvironmentSpec:
    write(folder, {"conda.yaml": text})
    return read_environment("conda_env", folder / "conda.yaml", folder=folder, env_manager="virtualenv", current=False)


def texts(spec: EnvironmentSpec) -> list[str]:
    return [line.text for line in spec.requirements]


FILES: dict[Declared, str | None] = {
    "none": None,
    "python_env": "python_env.yaml",
    "conda_env": "conda.yaml",
    "docker_env": None,
}


@pytest.mark.parametrize(
    ("kind", "env_manager", "current", "expected"),
    [
        ("none", None, False, "current"),
        ("none", "local", False, "current"),
        ("none", "virtualenv", False, "python"),
        ("none", "uv", False, "python"),
        ("none", "conda", False, "cannot be run with conda"),
        ("python_env", None, False, "python"),
        ("python_env", "virtualenv", False, "python"),
        ("python_env", "uv", False, "python"),
        ("python_env", "local", False, "current"),
        ("python_env", "conda", False, "cannot be run with conda"),
        ("python_env", None, True, "current"),
        ("conda_env", None, False, "conda"),
        ("conda_env", "conda", False, "conda"),
        ("conda_env", "virtualenv", False, "python"),
        ("conda_env", "uv", False, "python"),
        ("conda_env", "local", False, "current"),
        ("docker_env", None, False, "runs in a container"),
        ("docker_env", "local", False, "runs in a container"),
        ("docker_env", None, True, "current"),
        ("python_env", "poetry", False, "unknown environment manager 'poetry'"),
    ],
)
def test_the_environment_is_chosen_as_mlflow_chooses(
    folder: Path, kind: Declared, env_manager: str | None, current: bool, expected: str
) -> None:
    write(folder, {"python_env.yaml": "dependencies: [six]", "conda.yaml": "dependencies: [pip: [six]]"})
    name = FILES[kind]
    path = None if name is None else folder / name
    if expected in ("current", "python", "conda"):
        assert read_environment(kind, path, folder=folder, env_manager=env_manager, current=current).kind == expected
    else:
        with pytest.raises(EnvironmentUnavailable, match=re.escape(expected)):
            read_environment(kind, path, folder=folder, env_manager=env_manager, current=current)


def test_no_environment_file_is_said(folder: Path) -> None:
    spec = read_environment("none", None, folder=folder, env_manager=None, current=False)
    assert "the current interpreter is used" in spec.notes[0]


def test_files_are_followed_and_lines_keep_their_origin(folder: Path) -> None:
    write(
        folder,
        {
            "requirements.txt": "# all\nsix >= 1.16 ; python_version > '3'  # why\n\n-r 'more reqs/é.txt'\n",
            "more reqs/é.txt": "--constraint=../bounds.txt\nFoo_Bar[a, b] \\\n  ==1.0 \\\n"
            "  --hash=sha256:AB --hash sha256:01\n",
            "bounds.txt": "\ufeffsix<2\n",
        },
    )
    spec = read_python(folder, 'python: "3.11"\nbuild_dependencies: [pip]\ndependencies:\n- -rrequirements.txt\n')
    assert [(line.text, line.name, line.origin) for line in spec.requirements] == [
        ("pip", "pip", "python_env.yaml:2"),
        ("six >= 1.16 ; python_version > '3'", "six", "requirements.txt:2"),
        ("Foo_Bar[a, b] ==1.0", "foo-bar", "more reqs/é.txt:2"),
    ]
    assert spec.requirements[2].hashes == ("sha256:01", "sha256:ab")
    assert [(line.text, line.origin) for line in spec.constraints] == [("six<2", "bounds.txt:1")]
    assert [path.name for path in spec.files] == ["python_env.yaml", "requirements.txt", "é.txt", "bounds.txt"]
    assert (spec.python, spec.python_origin) == ("3.11", "python_env.yaml:1")


def test_index_options_are_lifted_and_folders_kept_relative(folder: Path) -> None:
    write(folder, {"sub/r.txt": "-f ./wheels\n-i https://one/simple\n--pre --no-binary six\n--prefer-binary\n"})
    write(folder, {"sub/wheels/x": ""})
    spec = read_python(
        folder,
        "dependencies:\n- -r sub/r.txt\n- --extra-index-url https://a/simple\n- --extra-index-url https://b/simple\n"
        "- --trusted-host a\n- --no-index\n",
    )
    assert spec.indexes.index_url == "https://one/simple"
    assert spec.indexes.extra_index_urls == ("https://a/simple", "https://b/simple")
    assert spec.indexes.find_links == ("sub/wheels",)
    assert spec.indexes.no_index
    assert spec.indexes.trusted_hosts == ("a",)
    assert (spec.prerelease, spec.options) == (True, ("--no-binary six",))
    assert spec.notes == ("sub/r.txt:4: --prefer-binary is ignored: uv knows no such preference",)


def test_a_file_named_twice_counts_once(folder: Path) -> None:
    write(folder, {"a.txt": "-r c.txt\n", "b.txt": "-r c.txt\n", "c.txt": "six\n"})
    spec = read_python(folder, "dependencies: [-r a.txt, -r b.txt, -c c.txt]")
    assert texts(spec) == ["six"]
    assert [line.text for line in spec.constraints] == ["six"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("six @ https://host/six-1.0-py3-none-any.whl", "six @ https://host/six-1.0-py3-none-any.whl"),
        ("https://host/six-1.0-py3-none-any.whl", "six @ https://host/six-1.0-py3-none-any.whl"),
        ("https://host/six-1.0.tar.gz", "six @ https://host/six-1.0.tar.gz"),
        ("git+https://host/six.git@v1#egg=six", "six @ git+https://host/six.git@v1"),
        ("git+ssh://git@host/six.git", "git+ssh://git@host/six.git"),
    ],
)
def test_addresses_get_their_package_s_name(folder: Path, line: str, expected: str) -> None:
    spec = read_python(folder, f"dependencies: ['{line}']")
    assert (texts(spec), spec.requirements[0].name) == ([expected], "six")


@pytest.mark.parametrize(
    ("env_manager", "dependencies", "added"),
    [
        (None, "[six]", True),
        ("virtualenv", "[six]", True),
        ("uv", "[six]", False),
        (None, "[six, 'PIP<24']", False),
        (None, "[six, --no-index]", False),
    ],
)
def test_pip_is_there_where_mlflow_has_it(
    folder: Path, env_manager: str | None, dependencies: str, added: bool
) -> None:
    assert ("pip" in texts(read_python(folder, f"dependencies: {dependencies}", env_manager))) is added


def test_variables_are_expanded_as_pip_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIX_VERSION", "1.16")
    spec = read_python(folder, "dependencies: ['six==${SIX_VERSION}']")
    assert texts(spec) == ["six==1.16"]
    with pytest.raises(EnvironmentUnavailable, match=re.escape("python_env.yaml:1: ${NOT_SET} is not set")):
        read_python(folder, "dependencies: ['--index-url https://u:${NOT_SET}@host/simple']")


def test_the_fingerprint_is_of_what_is_wanted_only(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, {"r.txt": "six\nfoo\n", "wheels/x": ""})
    write(there, {"reqs.txt": "# a comment\nsix\n\nfoo # another\n", "wheels/x": ""})
    first = read_python(here, "dependencies: [-r r.txt, -f wheels, '--index-url https://u:one@host/simple?sig=1']")
    other = "dependencies: [-r reqs.txt, -f wheels, '--index-url https://u:two@host/simple?sig=2']"
    assert read_python(there, other).fingerprint == first.fingerprint
    changed = [
        "dependencies: [-r r.txt, -f wheels]",
        "dependencies: [-r r.txt, -f wheels, --index-url https://host/other]",
        "dependencies: [-r r.txt, -f wheels, --index-url https://host/simple, bar]",
        'python: "3.11"\ndependencies: [-r r.txt, -f wheels, --index-url https://host/simple]',
    ]
    found = {read_python(here, text).fingerprint for text in changed} | {first.fingerprint}
    assert len(found) == len(changed) + 1


def test_credentials_are_not_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "canary-token")
    spec = read_python(
        folder,
        "dependencies:\n- --index-url https://me:canary-one@host/simple\n"
        "- --extra-index-url https://${TOKEN}@host/more\n- --find-links https://host/w?sig=canary-two\n",
    )
    assert "canary" not in repr(spec)
    assert spec.indexes.public() == (
        "--index-url https://host/simple",
        "--extra-index-url https://host/more",
        "--find-links https://host/w",
    )
    lines = spec.indexes.lines(folder, os.environ)
    assert lines[1] == "--extra-index-url https://canary-token@host/more"


WRONG_FILES: list[tuple[str, str]] = [
    ("", "python_env.yaml: the file is empty; list the packages, or remove it"),
    ("- six", "python_env.yaml:1: expected 'key: value' lines"),
    ("\nx: [", "python_env.yaml:2: not YAML: "),
    ("a: 1\n\tb: 2\n", "python_env.yaml:2: not YAML: "),
    ("a: \x00", "python_env.yaml: not YAML: "),
    ("[" * 5000, "python_env.yaml: not YAML: nested too deeply"),
    (
        "python: '3.11'\ndependancies: [six]",
        "python_env.yaml:2: unknown key 'dependancies'; did you mean dependencies?",
    ),
    ("channels: [x]", "unknown key 'channels'; the keys are python, build_dependencies, dependencies"),
    ("python: '3'\npython: '3'", "python_env.yaml:2: 'python' stands here twice"),
    ("#" * 64_001, "python_env.yaml: 64,001 bytes are too many for a list of packages"),
    ("1: x", "python_env.yaml:1: entries of the file must be text"),
    ("python: [3]", "python_env.yaml:1: python must be a version"),
    ("dependencies: six", "python_env.yaml:1: dependencies must be a list; put '- ' before each"),
    ("dependencies:\n- six\n- numpy: 1.2", "python_env.yaml:3: 'numpy:' opens a mapping"),
    ("dependencies:\n- 3", "python_env.yaml:2: entries of dependencies must be text"),
    ("dependencies:\n- |\n  six\n  foo==\n", "python_env.yaml:4: 'foo==' is not a requirement"),
    ("dependencies: ['six==']", "python_env.yaml:1: 'six==' is not a requirement"),
    ("dependencies: ['six -x']", "-x beside a requirement is not supported"),
    ("dependencies: ['six --hash=sha256']", "--hash=sha256 is not ALGORITHM:DIGEST"),
    ("dependencies: ['-r nope.txt']", "python_env.yaml:1: nope.txt: no such file"),
    ("dependencies: ['-c nope.txt']", "python_env.yaml:1: nope.txt: no such file"),
    ("dependencies: ['-r']", "--requirement needs a value"),
    ("dependencies: ['-r \"x']", "no closing quotation in"),
    ("dependencies: ['-r https://host/r.txt']", "download it into the project"),
    ("dependencies: ['-r .']", "python_env.yaml:1: .: "),
    ("dependencies: ['-f nope']", "--find-links nope: no such file or folder"),
    ("dependencies: ['--frob=x']", "--frob is not understood here"),
    ("dependencies: ['-e .']", "-e . cannot be locked: what it installs changes with the files there; remove the line"),
    ("dependencies: ['-e ../x']", "name a released version, or --env-manager local"),
    ("dependencies: [./pkg]", "./pkg is a path, which no lock can carry; name a released version"),
    ("dependencies: [x-1.0-py3-none-any.whl]", "use --find-links FOLDER and NAME==VERSION"),
    ("dependencies: ['x @ file:///tmp/x-1.0.tar.gz']", "use --find-links FOLDER and NAME==VERSION"),
    ("dependencies: ['https://host/download']", "write NAME @ https://host/download"),
    ("dependencies: ['hg+https://host/x#egg=x']", "uv installs from git only"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG_FILES)
def test_mistakes_are_one_line_with_their_place(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(EnvironmentUnavailable) as caught:
        read_python(folder, text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["git+https://canary@host/x.git", "x @ https://a:canary@host/x.zip", "x @ https://h/x.zip?sig=canary"]
)
def test_credentials_in_a_requirement_are_refused_and_not_repeated(folder: Path, line: str) -> None:
    with pytest.raises(EnvironmentUnavailable, match="holds credentials") as caught:
        read_python(folder, f"dependencies: ['{line}']")
    assert "canary" not in str(caught.value)


def test_a_requirements_file_that_includes_itself(folder: Path) -> None:
    write(folder, {"a.txt": "-r b.txt\n", "b.txt": "six\n-r a.txt\n"})
    with pytest.raises(EnvironmentUnavailable, match=re.escape("b.txt:2: a.txt includes itself")):
        read_python(folder, "dependencies: [-r a.txt]")


def test_paths_start_from_the_project_s_folder_as_in_mlflow(folder: Path) -> None:
    write(folder, {"env/python_env.yaml": "dependencies: [-r requirements.txt]", "env/requirements.txt": "six\n"})
    path = folder / "env/python_env.yaml"
    with pytest.raises(EnvironmentUnavailable, match=re.escape("write env/requirements.txt")):
        read_environment("python_env", path, folder=folder, env_manager=None, current=False)


@pytest.mark.parametrize("content", [b"\xff\xfes\x00i\x00x\x00", b"#" * 1_000_001])
def test_files_that_are_no_list_of_packages(folder: Path, content: bytes) -> None:
    (folder / "r.txt").write_bytes(content)
    with pytest.raises(EnvironmentUnavailable, match=r"r\.txt: (not UTF-8 text|1,000,001 bytes are too many)"):
        read_python(folder, "dependencies: [-r r.txt]")


def test_a_python_that_yaml_takes_for_a_number_is_read_as_written(folder: Path) -> None:
    spec = read_python(folder, "python: 3.10")
    assert spec.python == "3.10"
    assert 'write "3.10"' in spec.notes[0]


def test_a_virtual_environment_takes_from_conda_what_mlflow_takes(folder: Path) -> None:
    spec = read_conda(
        folder,
        "name: x\nchannels: [conda-forge]\ndependencies:\n- conda-forge::python=3.11\n- pip<=24.0\n"
        "- setuptools=68\n- numpy>=1.2\n- graphviz\n- pip:\n  - six\n",
    )
    assert (spec.python, spec.python_origin) == ("3.11", "conda.yaml:4")
    assert [(line.text, line.origin) for line in spec.requirements] == [
        ("pip<=24.0", "conda.yaml:5"),
        ("setuptools==68", "conda.yaml:6"),
        ("six", "conda.yaml:10"),
    ]
    dropped = "left out, because a virtual environment has no conda packages: numpy>=1.2, graphviz"
    assert spec.notes == (f"conda.yaml: {dropped}",)


@pytest.mark.parametrize(
    ("spec", "python"),
    [
        ("python", None),
        ("python=3.8", "3.8"),
        ("python=3.8.*", "3.8"),
        ("python==3.8.13", "3.8.13"),
        ("python 3.8", "3.8"),
        ("python=3.8=h123_0", "3.8"),
        ("python>=3.8,<3.12", ">=3.8,<3.12"),
    ],
)
def test_the_python_of_a_conda_file(folder: Path, spec: str, python: str | None) -> None:
    assert read_conda(folder, f"dependencies: ['{spec}']").python == python


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, database=None)
@given(data=st.data())
def test_whatever_stands_in_the_files_no_other_error_comes_out(tmp_path: Path, data: st.DataObject) -> None:
    pieces = st.sampled_from(
        [
            "-r",
            "-c",
            "r.txt",
            "--hash=",
            "six",
            "==",
            "@",
            "git+",
            "://",
            "#",
            "${A}",
            "\\\n",
            "- ",
            ": ",
            "[",
            "'",
            "\n",
        ]
    )
    lines = data.draw(st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=12).map("".join))
    (tmp_path / "r.txt").write_bytes(lines.encode("utf-8", "surrogatepass"))
    yaml = data.draw(
        st.one_of(st.just("dependencies: ['-r r.txt']"), st.just(lines), st.just(f"dependencies:\n- {lines}"))
    )
    (tmp_path / "python_env.yaml").write_bytes(yaml.encode("utf-8", "surrogatepass"))
    path = tmp_path / "python_env.yaml"
    try:
        spec = read_environment("python_env", path, folder=tmp_path, env_manager=None, current=False)
    except EnvironmentUnavailable as error:
        assert "\n" not in str(error)
    else:
        assert len(spec.fingerprint) == 64
