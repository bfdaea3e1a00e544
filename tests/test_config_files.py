from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_azure_backend.config import (
    BackendConfig,
    DataInput,
    LoadedConfig,
    Resources,
    Retry,
    check_honoured,
    load_config,
    read_config_argument,
)
from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def load(raw: Mapping[str, Any], folder: Path | None = None, **environ: str) -> LoadedConfig:
    return load_config(raw, project_folder=folder, environ=environ)


def refusal(raw: Any, folder: Path | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(raw, folder, **environ)
    line = str(error.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a git work tree of its own, so that nothing above it counts; its name is nasty."""
    folder = tmp_path / 'pro ject\n"ü"'
    (folder / ".git").mkdir(parents=True)
    return folder


def defaults(folder: Path, text: str | bytes) -> Path:
    path = folder / "mlflow-azure.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ── files and profiles ───────────────────────────────────────────────────────────────────────────────────────────────


def test_each_place_overrides_the_ones_before_it(project: Path, tmp_path: Path) -> None:
    mine = defaults(
        tmp_path / "config" / "mlflow-azure",
        "timeout: 1\nretry: 1\ndetach: true\ntags: {a: mine, b: mine, c: mine, d: mine}\nworkdir: snapshot\n"
        "profiles: {gpu: {tags: {c: my profile}}}",
    )
    theirs = defaults(
        project,
        "timeout: 2\nretry: 2\nprofile: gpu\ntags: {b: project}\nsnapshot: {include: [a, b]}\n"
        "profiles: {gpu: {retry: 3, tags: {d: profile}}, other: {retry: 9}}",
    )
    raw = {"tags": {"e": "asked"}, "workdir": None, "snapshot": {"include": ["c"]}}
    loaded = load(raw, project, XDG_CONFIG_HOME=str(tmp_path / "config"))
    config = loaded.config
    assert loaded.sources == (mine, theirs)
    assert (config.timeout, config.retry, config.detach, config.profile) == (2, Retry(max=3), True, "gpu")
    assert config.tags == {"a": "mine", "b": "project", "c": "my profile", "d": "profile", "e": "asked"}
    assert config.snapshot.include == ("c",)
    assert (config.workdir, "workdir" in config.model_fields_set) == ("project", False)
    assert "profile: gpu" in loaded.notes


def test_the_profile_is_chosen_by_argument_then_variable_then_file(project: Path) -> None:
    defaults(project, "profile: a\nprofiles:\n  a: {timeout: 1}\n  b: {timeout: 2}\n  c: {timeout: 3}\n")
    assert load({}, project).config.timeout == 1
    assert load({}, project, MLFLOW_AZURE_PROFILE="b").config.timeout == 2
    assert load({"profile": "c"}, project, MLFLOW_AZURE_PROFILE="b").config.timeout == 3
    assert load({"profile": None}, project, MLFLOW_AZURE_PROFILE="b").config.timeout is None
    assert load({}, project, MLFLOW_AZURE_PROFILE="").config.timeout == 1


def test_an_unknown_profile_names_the_known_ones_and_the_files(project: Path) -> None:
    path = defaults(project, "profiles: {gpu: {}, small: {}}")
    line = refusal({"profile": "gpx"}, project)
    assert " ".join(str(path).split()) in line
    assert '"gpx" is not defined' in line
    assert "(nearest valid: gpu) (defined: gpu, small)" in line
    assert "there is no mlflow-azure.yaml" in refusal({"profile": "gpx"})


def test_the_file_is_looked_for_up_to_the_git_root(project: Path) -> None:
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    outside = defaults(project.parent, "timeout: 1")
    assert load({}, inner).sources == ()
    above = defaults(project, "timeout: 2")
    assert load({}, inner).sources == (above,)
    nearest = defaults(inner, "timeout: 3")
    assert load({}, inner).sources == (nearest,)
    (project / ".git").rmdir()
    above.unlink()
    nearest.unlink()
    assert load({}, inner).sources == (outside,)
    assert load({}, None).sources == ()


def test_the_users_file_is_in_home_or_where_xdg_says(tmp_path: Path) -> None:
    at_home = defaults(tmp_path / ".config" / "mlflow-azure", "timeout: 1")
    elsewhere = defaults(tmp_path / "xdg" / "mlflow-azure", "timeout: 2")
    assert load({}, HOME=str(tmp_path)).sources == (at_home,)
    assert load({}, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path / "xdg")).sources == (elsewhere,)
    assert load({}, HOME=str(tmp_path), XDG_CONFIG_HOME="xdg").sources == (at_home,)
    assert load({}, HOME="").sources == ()
    assert load({}, at_home.parent, HOME=str(tmp_path)).sources == (at_home,)


def test_another_users_file_above_the_project_is_not_trusted(project: Path) -> None:
    inner = project / "inner"
    inner.mkdir()
    path = defaults(project, "timeout: 1")
    os.chown(path, 12345, -1)
    assert "belongs to another user (uid 12345)" in refusal({}, inner)
    os.chown(inner, 12345, -1)
    assert load({}, inner).config.timeout == 1


def test_relative_paths_in_a_file_start_at_its_folder(project: Path) -> None:
    defaults(
        project,
        "workspace: conf/config.json\n"
        "inputs: {a: {path: data}, b: {path: 'azureml:x:1'}, c: {path: 'https://x/y'}, d: {path: /abs}}\n"
        "profiles: {p: {outputs: {o: {path: out}}}}",
    )
    config = load({"profile": "p", "inputs": {"e": {"path": "here"}}}, project).config
    assert config.workspace == str(project / "conf/config.json")
    assert config.outputs["o"].path == str(project / "out")
    assert {name: data.path for name, data in config.inputs.items()} == {
        "a": str(project / "data"),
        "b": "azureml:x:1",
        "c": "https://x/y",
        "d": "/abs",
        "e": "here",
    }


def test_mistakes_in_files_come_with_file_and_line(project: Path) -> None:
    path = defaults(
        project,
        "timeout: soon\ntags:\n  a: [1]\n"
        "profiles:\n  gpu:\n    snapshot:\n      max_sise: 1\n  bad: 3\n  p: {profile: x}\n",
    )
    line = refusal({"profile": "gpu", "compue": 1}, project)
    file = " ".join(str(path).split())
    for said in (
        f"{file}:1: timeout: expected a duration",
        f"{file}:3: tags.a: expected text",
        f"{file}:7: profiles.gpu.snapshot.max_sise: unknown key (nearest valid: max_size)",
        f"{file}:8: profiles.bad: expected keys and values, got 3",
        f"{file}:9: profiles.p.profile: a profile cannot hold another one",
        "; compue: unknown key (nearest valid: compute)",
    ):
        assert said in line
    defaults(project, "profiles: [a]\nprofile: 3")
    assert ":1: profiles: expected names with their keys, got a list" in refusal({}, project)


def test_yaml_is_read_as_it_is_written(project: Path) -> None:
    defaults(
        project,
        "environment_variables: &base {A: 010}\n"
        "tags: {<<: *base, version: 1.10, yes: no, date: 2024-01-01, time: 1:30, quoted: '1.0'}\n"
        "retry: {max: 1, on: [service]}\nsubmission_id: 2024-01-01\ndetach: yes\n",
    )
    config = load({}, project).config
    assert config.environment_variables == {"A": "010"}
    assert config.tags == {
        "A": "010",
        "version": "1.10",
        "yes": "no",
        "date": "2024-01-01",
        "time": "1:30",
        "quoted": "1.0",
    }
    assert config.retry == Retry(max=1, on=("service",))
    assert (config.submission_id, config.detach) == ("2024-01-01", True)
    defaults(project, "timeout: 1:30")
    assert 'timeout: expected a duration such as "2h", "90m" or "1h30m", or a number of seconds, got "1:30"' in refusal(
        {}, project
    )


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter + 1, letter + 1, b",".join([b"*%c" % letter] * 9)) for letter in range(97, 110)
)
MERGES = b"a: &a {x: 1}\n" + b"".join(
    b"%c: &%c {<<: [%s]}\n" % (letter + 1, letter + 1, b",".join([b"*%c" % letter] * 9)) for letter in range(97, 105)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LAUGHS, ":1: holds more than 10000 values, aliases expanded"),
        (MERGES, ":1: holds more than 10000 values, aliases expanded"),
        (b"tags:\n" + b"- a\n" * 16_000, ":10000: holds more than 10000 values"),
        (b"[" * 60_000, ":1:21: is not YAML: nested too deeply"),
        (b"{" * 60_000, ":1:21: is not YAML: nested too deeply"),
        (b"- " * 30_000, "is nested too deeply"),
        (b"".join(b" " * depth + b"a:\n" for depth in range(300)), ":22: is nested more than 20 levels deep"),
        (b"tags: &a [*a]", ":1: is nested more than 20 levels deep, or contains itself"),
        (b"&a {tags: *a}", ":1: is nested more than 20 levels deep, or contains itself"),
        (b"#" * 70_000, "is larger than 64 KiB"),
        (b"timeout: 1\ntags: \xe9", ":2: is not UTF-8; save it as UTF-8"),
        (b"tags: \0", "it holds a control character"),
        (b"timeout: 1\n\ttags: 2", ":2:1: is not YAML: found character '\\t' that cannot start any token"),
        (b"timeout: 1\ntimeout: 2", ':2: the key "timeout" is there twice'),
        (b"? [a]\n: b", ":1: a key must be text"),
        (b"- a", ":1: expected keys and values such as compute: docker"),
        (b"tags: 1\n---\ntags: 2", ":2:1: is not YAML"),
        (b"tags: *nothing", ":1:7: is not YAML: found undefined alias"),
        (b"tags: !!python/object/apply:os.system [ls]", ":1:7: is not YAML: could not determine a constructor"),
        (b"timeout: !!int x", "does not fit its tag"),
        (b"detach: !!bool x", "does not fit its tag"),
        (b"timeout: " + b"9" * 5000, "does not fit its tag"),
        (b"timeout: !!binary eA==", "timeout: expected a duration such as"),
        (b"tags: !!set {a, b}", "tags: expected an object such as"),
    ],
)
def test_a_file_that_is_none_is_named_with_its_line(project: Path, content: bytes, said: str) -> None:
    path = defaults(project, content)
    line = refusal({}, project)
    assert line.startswith(" ".join(str(path).split()))
    assert said in line


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xef\xbb\xbftimeout: 1", b"timeout: ", b"profiles: "])
def test_an_empty_file_or_value_is_no_mistake(project: Path, content: bytes) -> None:
    defaults(project, content)
    assert len(load({}, project).sources) == 1


def test_what_is_no_file_is_refused_and_not_waited_for(project: Path) -> None:
    os.mkfifo(project / "mlflow-azure.yaml")
    assert "is not a file" in refusal({}, project)
    (project / "mlflow-azure.yaml").unlink()
    (project / "mlflow-azure.yaml").mkdir()
    assert "is not a file" in refusal({}, project)


def test_a_misnamed_file_is_said(project: Path) -> None:
    (project / "mlflow-azure.yml").write_text("timeout: 1")
    loaded = load({}, project)
    assert loaded.config.timeout is None
    assert f"{project / 'mlflow-azure.yml'} is not read: its name would have to be mlflow-azure.yaml" in loaded.notes


# ── targets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_file_says_for_every_run_is_set_aside_and_said(project: Path) -> None:
    path = defaults(
        project,
        "workspace: config.json\nresources:\n  gpus: 1\n  instance_count: 2\n"
        "inputs: {a: {path: x, mode: direct}}\ntimeout: 1\n",
    )
    local = load({}, project).for_target("local")
    assert local.config == BackendConfig(timeout=1, inputs={"a": DataInput(path=str(project / "x"))})
    assert f"{path}:1: workspace (works on cluster): set aside for local" in local.notes
    assert f"{path}:2: resources (works on docker and cluster): set aside for local" in local.notes
    assert f"{path}:5: inputs.a.mode (works on cluster): set aside for local" in local.notes
    docker = load({"compute": "docker", "resources": {"cpus": 1.0}}, project).for_target("docker")
    assert docker.config.resources == Resources(gpus=1, cpus=1.0)
    assert f"{path}:4: resources.instance_count (works on cluster): set aside for docker" in docker.notes
    cluster = load({"compute": "cpu-cluster"}, project)
    assert cluster.for_target("cluster").config.resources == Resources(instance_count=2)
    check_honoured(local.config, "local")


def test_what_was_asked_for_is_refused_and_not_set_aside(project: Path) -> None:
    path = defaults(project, "resources: {gpus: 1}\nprofiles:\n  p:\n    display_name: x\n")
    asked = load({"profile": "p", "workspace": "config.json"}, project)
    with pytest.raises(ConfigError) as error:
        asked.for_target("local")
    file = " ".join(str(path).split())
    assert str(error.value) == (
        f"backend_config: local cannot honour workspace (works on cluster); {file}:4: profiles.p.display_name"
        " (works on cluster); remove them or choose another compute"
    )


# ── -c of our own command line ───────────────────────────────────────────────────────────────────────────────────────


def test_the_argument_is_json_or_a_file(tmp_path: Path) -> None:
    wanted = {"compute": "docker", "tags": {"ü": "x"}}
    text = json.dumps(wanted, ensure_ascii=False)
    assert read_config_argument(f"\n {text}") == wanted
    for name in ("a b.json", "ü.JSON", "c.yaml", "d.yml"):
        (tmp_path / name).write_text(f"\ufeff{text}", encoding="utf-8")
        assert read_config_argument(str(tmp_path / name)) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1,\n "b": }', "backend_config:2:7: is not JSON: expecting value"),
        ('{"a": 1, "a": 2}', 'the key "a" is there twice'),
        ("[1]", "expected an object, got a list"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "holds a number with too many digits"),
        ("gpu", 'expected a .json or .yaml file, or JSON itself, got "gpu"'),
        ("", "expected a .json or .yaml file, or JSON itself"),
        ("/no such/file.json", "/no such/file.json: cannot be read: No such file or directory"),
        ("/no such/file.yaml", "/no such/file.yaml: cannot be read: No such file or directory"),
        ("a\0b.json", "cannot be read"),
        ("a\0b.yaml", "cannot be read"),
    ],
)
def test_an_argument_that_is_neither_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_config_argument(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"a": 1,\n "b": }', ":2:7: is not JSON"), (b'{"a": "\xe9"}', "is not UTF-8"), (b" " * 2**20 + b"{}", "1 MiB")],
)
def test_a_json_file_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}.*{said}"):
        read_config_argument(str(path))


# ── anything at all ───────────────────────────────────────────────────────────────────────────────────────────────────

YAML = st.lists(
    st.sampled_from([*"{}[]:-?&*!|>'\"%@`#, \n\t", "\n  ", ": ", "- ", "&a ", "*a ", "<<", "!!int ", "~", "1:30", "é"])
    | st.sampled_from([*BackendConfig.model_fields, "profiles", "path"])
    | st.text(max_size=3),
    max_size=30,
).map("".join)


@settings(max_examples=300, deadline=None, database=None)
@given(content=YAML.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=40))
def test_any_file_is_a_configuration_or_a_mistake(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "any file"
    path = defaults(folder, content)
    try:
        assert load({}, folder).sources == (path,)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(error).startswith(str(path))
