"""What a conda.yaml asks for: every entry that conda knows, and each mistake in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mlflow_azure_backend.environment.conda.channels import split_channel
from mlflow_azure_backend.environment.conda.wanted import local_platform, virtual_packages_of
from mlflow_azure_backend.environment.spec import EnvironmentSpec, read_environment
from mlflow_azure_backend.errors import EnvironmentUnavailable


def read(
    folder: Path,
    text: str,
    *,
    channels: Sequence[str] | None = None,
    virtual_packages: Mapping[str, str] | None = None,
) -> EnvironmentSpec:
    file = folder / "conda.yaml"
    file.write_text(text, encoding="utf-8")
    return read_environment(
        "conda_env",
        file,
        folder=folder,
        env_manager=None,
        current=False,
        channels=channels,
        virtual_packages=virtual_packages,
    )


def test_every_kind_of_entry(folder: Path) -> None:
    (folder / "more.txt").write_text("six>=1\n-c bound.txt\n")
    (folder / "bound.txt").write_text("idna<4\n")
    spec = read(
        folder,
        """name: x
channels: [https://user:pw@example.org/private/, conda-forge, nodefaults]
platforms: [linux-64, osx-arm64]
variables: {TOKENS: 4, NAME: it's}
dependencies:
  - python=3.11
  - conda-forge::NumPy >=1.26,<3
  - libblas[build=*mkl]
  - graphviz  # [linux64]
  - xcode  # only there [osx]
  - pip
  - pip:
    - -r more.txt
    - --index-url https://example.org/simple
    - requests[socks]>=2; python_version > "3.8"
    - idna  # [linux]
""",
    )
    assert (spec.kind, spec.conda is not None) == ("conda", True)
    assert spec.conda is not None
    assert [(line.name, line.origin) for line in spec.conda.requirements[:3]] == [
        ("python", "conda.yaml:6"),
        ("numpy", "conda.yaml:7"),
        ("libblas", "conda.yaml:8"),
    ]
    assert {line.name: line.platforms for line in spec.conda.requirements if line.platforms} == {
        "graphviz": ("linux-64",),
        "xcode": ("osx-64", "osx-arm64"),
    }
    assert spec.conda.platforms == ("linux-64", "osx-arm64")
    assert spec.conda.variables == (("TOKENS", "4"), ("NAME", "it's"))
    assert spec.conda.channels == ("https://user:pw@example.org/private/", "conda-forge")
    assert [line.text.partition(" ;")[0] for line in spec.requirements] == [
        "six>=1",
        'requests[socks]>=2; python_version > "3.8"',
        "idna",
    ]
    assert "platform_machine == 'aarch64'" in spec.requirements[2].text
    assert [line.text for line in spec.constraints] == ["idna<4"]
    assert {file.name for file in spec.files} == {"conda.yaml", "more.txt", "bound.txt"}
    assert "pw" not in repr(spec.conda)
    assert spec.notes == (
        "conda.yaml:2: credentials stand in the file, which is stored with the run; use ~/.netrc or $NAME",
    )


def test_a_password_changes_nothing_of_what_is_wanted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "channels: [{}]\ndependencies: [python]\n"
    prints = {
        read(folder, text.format(channel)).fingerprint
        for channel in ("https://a:b@h.org/c", "https://c@h.org/c/", "https://h.org/t/tk-1/c", "https://h.org/c")
    }
    assert len(prints) == 1
    monkeypatch.setenv("CHANNEL_USER", "me")
    monkeypatch.setenv("CHANNEL_PASSWORD", "s/cret@")
    spec = read(folder, text.format("'https://$CHANNEL_USER:${CHANNEL_PASSWORD}@h.org/c'"))
    assert not spec.notes
    assert spec.fingerprint in prints


@pytest.mark.parametrize(
    ("channel", "public", "entry"),
    [
        ("conda-forge/label/dev/", "conda-forge/label/dev", None),
        ("https://h.org:8443/a/", "https://h.org:8443/a", None),
        ("https://u:p%40w@h.org:8443/a", "https://h.org:8443/a", {"BasicHTTP": {"username": "u", "password": "p@w"}}),
        ("https://h.org/t/tk-1/a/b", "https://h.org/a/b", {"CondaToken": "tk-1"}),
        ("https://h.org/conda/t/tk-1/a", "https://h.org/conda/a", {"CondaToken": "tk-1"}),
    ],
)
def test_what_of_a_channel_may_be_shown(channel: str, public: str, entry: object) -> None:
    shown, credentials = split_channel(channel)
    assert shown == public
    assert (None if credentials is None else credentials.entry) == entry


def test_pip_comes_with_a_pip_section_as_conda_adds_it(folder: Path) -> None:
    spec = read(folder, "channels: [a]\ndependencies: [python, pip: [six]]\n")
    assert spec.conda is not None
    assert [line.name for line in spec.conda.requirements] == ["python", "pip"]


def test_platforms_are_this_machine_and_the_cluster_s(folder: Path) -> None:
    spec = read(folder, "channels: [a]\ndependencies: [python]\n")
    assert spec.conda is not None
    assert spec.conda.platforms == tuple(dict.fromkeys((local_platform(), "linux-64")))


def test_channels_are_never_added_in_silence(folder: Path) -> None:
    spec = read(folder, "dependencies: [python]\n")
    assert spec.conda is not None
    assert spec.conda.channels == ("conda-forge",)
    assert spec.notes == (
        "conda.yaml: it names no channels, so conda-forge is used (conda would take those of your .condarc)",
    )
    spec = read(folder, "channels: [defaults]\ndependencies: [python]\n")
    assert spec.conda is not None
    assert spec.conda.channels == ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
    assert "whose terms ask larger organisations for a licence" in spec.notes[0]
    spec = read(folder, "channels: [defaults]\ndependencies: [python]\n", channels=["mine"])
    assert spec.conda is not None
    assert (spec.conda.channels, spec.notes) == (("mine",), ())


def test_virtual_packages_are_those_of_every_machine_and_the_declared_ones(folder: Path) -> None:
    spec = read(
        folder, "channels: [a]\ndependencies: [python]\n", virtual_packages={"__cuda": "12.4", "__glibc": "2.31"}
    )
    assert spec.conda is not None
    assert virtual_packages_of("linux-64", dict(spec.conda.virtual_packages)) == {
        "__unix": "0",
        "__linux": "5.10",
        "__glibc": "2.31",
        "__archspec": "1 x86_64",
        "__cuda": "12.4",
    }
    assert virtual_packages_of("osx-arm64", dict(spec.conda.virtual_packages)) == {
        "__unix": "0",
        "__osx": "11.0",
        "__archspec": "1 arm64",
    }
    assert "__cuda" not in virtual_packages_of("linux-64", {})
    with pytest.raises(EnvironmentUnavailable, match=r"environment\.virtual_packages: 'cuda': '12' is no virtual"):
        read(folder, "dependencies: [python]\n", virtual_packages={"cuda": "12"})


WRONG: list[tuple[str, str]] = [
    ("", "conda.yaml: the file is empty; list the packages, or remove it"),
    ("- python", "conda.yaml:1: expected 'key: value' lines"),
    ("dependancies: [python]", "conda.yaml:1: unknown key 'dependancies'; did you mean dependencies?"),
    ("dependencies: python", "conda.yaml:1: dependencies must be a list; put '- ' before each entry of dependencies"),
    ("dependencies:\n- npm: [left-pad]", "conda.yaml:2: 'npm:' is not a section of dependencies; the only one is pip:"),
    ("dependencies:\n- 3.11", "conda.yaml:2: entries of dependencies must be text; put it in quotes"),
    ("dependencies:\n- '>=3'", "conda.yaml:2: '>=3' is not a conda package; write NAME or \"NAME >=VERSION\""),
    (
        "dependencies:\n- https://example.org/linux-64/a-1-0.conda",
        "conda.yaml:2: 'https://example.org/linux-64/a-1-0.conda' is a file, which no channel vouches for; name the package "
        "and its version",
    ),
    (
        "dependencies:\n- six  # [vax]",
        "conda.yaml:2: '[vax]' is no platform; the selectors are linux64, linux, unix, aarch64, ppc64le, osx64, osx, arm64, "
        "win64, win",
    ),
    (
        "platforms: [beos-64]\ndependencies: [six]",
        "conda.yaml:1: 'beos-64' is no platform; the platforms are linux-64, linux-aarch64, linux-ppc64le, osx-64, "
        "osx-arm64, win-64",
    ),
    (
        "platforms: [win-64]\ndependencies: [six]",
        f"conda.yaml: {local_platform()}, which this machine is, is not among its platforms; add {local_platform()} to "
        "platforms",
    ),
    ("variables: {a b: c}\ndependencies: [six]", "conda.yaml:1: 'a b' is no name for an environment variable"),
    ("variables: {a: [c]}\ndependencies: [six]", "conda.yaml:1: a variable's value must be text; put it in quotes"),
    (
        "channels: ['https://$NOBODY_SET_THIS@example.org/c']\ndependencies: [six]",
        "conda.yaml:1: $NOBODY_SET_THIS is not set in the environment; export NOBODY_SET_THIS=...",
    ),
    (
        "dependencies:\n- pip:\n  - -e ./lib",
        "conda.yaml:3: -e ./lib cannot be locked: what it installs changes with the files there; name a released version, "
        "or --env-manager local",
    ),
    (
        "dependencies:\n- pip:\n  - ./lib",
        "conda.yaml:3: ./lib is a path, which no lock can carry; name a released version, or --env-manager local",
    ),
    (
        "dependencies:\n- pip:\n  - six\n  - a-b[c] @ git+https://host/x.git@main",
        "conda.yaml:4: a-b[c] @ git+https://host/x.git@main is a git repository, and a conda lock holds wheels only; name "
        "a released version; --env-manager uv pins git repositories",
    ),
    (
        "dependencies:\n- pip: [git+ssh://git@host/x.git]",
        "conda.yaml:2: git+ssh://git@host/x.git is a git repository, and a conda lock holds wheels only; name a released "
        "version; --env-manager uv pins git repositories",
    ),
    (
        "dependencies:\n- pip:\n  - -r nowhere.txt",
        "conda.yaml:3: nowhere.txt: no such file",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WRONG)
def test_each_mistake_is_one_line(folder: Path, text: str, expected: str) -> None:
    with pytest.raises(EnvironmentUnavailable) as caught:
        read(folder, text)
    assert str(caught.value) == expected


def test_a_git_requirement_for_another_platform_is_left_to_the_solver(folder: Path) -> None:
    line = "x @ git+https://host/x ; sys_platform == 'win32'"
    spec = read(folder, f'channels: [a]\ndependencies:\n- pip: ["{line}"]\n')
    assert [found.text for found in spec.requirements] == [line]


def test_what_conda_ignores_is_said(folder: Path) -> None:
    spec = read(folder, "prefix: /opt/x\ndescription: mine\nchannels: [a]\ndependencies: [python]\n")
    assert spec.notes == ("conda.yaml: 'prefix' is ignored", "conda.yaml:2: 'description' is ignored, as conda does")
    spec = read(folder, "channels: [a]\ndependencies: [r-base]\n")
    assert spec.notes == ("conda.yaml: no python is asked for, so the command may find one outside of the environment",)
