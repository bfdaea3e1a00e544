from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from mlflow_azure_backend.config import (
    BackendConfig,
    DataInput,
    Environment,
    LoadedConfig,
    MlflowOptions,
    NewCompute,
    Resources,
    Retry,
    TargetName,
    Workspace,
    check_honoured,
    json_schema,
    load_config,
    split_mlflow_options,
)
from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent.parent
TARGETS: tuple[TargetName, ...] = ("local", "docker", "cluster")
WORKSPACE = {"subscription_id": "s-1", "resource_group": "ml", "workspace_name": "dev"}


def load(raw: Mapping[str, Any]) -> LoadedConfig:
    return load_config(raw, project_folder=None, environ={})


def refusal(raw: Any) -> str:
    with pytest.raises(ConfigError) as error:
        load(raw)
    line = str(error.value)
    assert "\n" not in line
    assert line.isprintable()
    return line


# ── single keys ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_asked_runs_here_and_says_so() -> None:
    loaded = load({})
    assert loaded.config == BackendConfig()
    assert (loaded.config.compute, loaded.config.target) == ("local", "local")
    assert loaded.notes == ()
    assert (loaded.mlflow, loaded.sources) == (MlflowOptions(), ())


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ({"compute": "azureml:cpu-cluster"}, "cpu-cluster"),
        ({"compute": {"name": "c", "size": "S"}}, NewCompute(name="c", size="S")),
        ({"workspace": WORKSPACE}, Workspace(**WORKSPACE)),
        ({"workspace": Path("a b/config.json")}, "a b/config.json"),
        ({"environment": "azureml:AzureML-sklearn-1.5@latest"}, "azureml:AzureML-sklearn-1.5@latest"),
        ({"environment": "azureml:mine:3"}, "azureml:mine:3"),
        ({"environment": {"channels": ["a", "b"]}}, Environment(channels=("a", "b"))),
        ({"resources": {"docker_args": "--ipc 'ho st'"}}, Resources(docker_args=("--ipc", "ho st"))),
        ({"resources": {"docker_args": ["--ipc", "host"]}}, Resources(docker_args=("--ipc", "host"))),
        ({"resources": {"shm_size": "2g", "gpus": "all", "cpus": 2}}, Resources(shm_size=2**31, gpus="all", cpus=2)),
        ({"inputs": {"d": {"path": Path("x y")}}}, {"d": DataInput(path="x y", type="uri_folder")}),
        (
            {"environment_variables": {"A": 4, "B": True, "C": 0.5, "D": ""}},
            {"A": "4", "B": "true", "C": "0.5", "D": ""},
        ),
        ({"secrets": {"TOKEN": "env:MY_TOKEN"}}, {"TOKEN": "env:MY_TOKEN"}),
        ({"retry": 2}, Retry(max=2, on=("preemption", "capacity", "service"))),
        ({"retry": {"max": 1, "on": ["service"]}}, Retry(max=1, on=("service",))),
        ({"tags": MappingProxyType({"team ü": "vision"})}, {"team ü": "vision"}),
        ({"timeout": None}, None),
        ({"resources": {"cpus": None}}, Resources()),
        ({"workdir": None}, "project"),
        ({"submission_id": "x" * 250}, "x" * 250),
    ],
)
def test_values_are_read(raw: dict[str, Any], wanted: object) -> None:
    config = load(raw).config
    assert getattr(config, *raw) == wanted
    assert BackendConfig.model_validate(config.model_dump(exclude_unset=True)) == config
    assert BackendConfig.model_validate_json(config.model_dump_json(exclude_unset=True)) == config


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1d 2H", 93600),
        ("0.5h", 1800),
        (90, 90),
        (0.25, 0.25),
    ],
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert load({"timeout": text}).config.timeout == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "2",
        "h",
        "2 hours",
        "-1h",
        "1m1h",
        "1.2.3h",
        "٣h",
        "PT2H",
        "0s",
        "366d",
        0,
        -1,
        True,
        [1],
        {},
        float("inf"),
        float("nan"),
        10**400,
    ],
)
def test_other_durations_are_refused(text: object) -> None:
    assert "timeout: expected a duration " in refusal({"timeout": text})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (300_000_000, 300_000_000),
        ("300MB", 300_000_000),
        ("1GB", 10**9),
        ("500MiB", 500 * 2**20),
        ("0.5 gib", 2**29),
        ("7", 7),
        ("2g", 2**31),
        ("1kB", 1000),
    ],
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    assert load({"snapshot": {"max_size": text}}).config.snapshot.max_size == size


@pytest.mark.parametrize(
    "text", ["", "MB", "1 M B", "1XB", "1.2.3MB", "-1MB", "0", 0, -5, 1.5, True, None or [], "9999999TB"]
)
def test_other_sizes_are_refused(text: object) -> None:
    assert "snapshot.max_size: expected a size " in refusal({"snapshot": {"max_size": text}})


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([], "backend_config: expected an object, got a list"),
        ({"compute": "Local"}, 'compute: expected "local" in lower case, got "Local"'),
        ({"compute": "two words"}, "compute: expected "),
        ({"compute": 3}, "compute: expected "),
        ({"compute": {"name": "docker", "size": "S"}}, 'compute.name: a cluster cannot be called "docker"'),
        ({"compute": {"name": "c"}}, "compute.size: is missing"),
        ({"compute": {"name": "c", "size": "S", "min_instances": 2}}, "compute.max_instances: must be at least min_in"),
        ({"workspace": 3}, "workspace: expected text or an object, got 3"),
        ({"workspace": "azureml://x"}, "workspace: is an object or the path of a config.json"),
        ({"workspace": {**WORKSPACE, "resource_group": "a/b"}}, "workspace.resource_group: expected a name "),
        ({"environment": "curent"}, 'environment: expected "current"'),
        ({"environment": "azureml:x"}, "environment: expected "),
        ({"environment": {"build": "imag"}}, "(nearest valid: image)"),
        ({"workdir": "projct"}, "workdir: expected 'project' or 'snapshot', got \"projct\" (nearest valid: project)"),
        ({"resources": {"gpus": -1}}, 'resources.gpus: expected a number of GPUs or "all", got -1'),
        ({"resources": {"docker_args": "'x"}}, "resources.docker_args: expected arguments as a shell takes them"),
        ({"resources": {"instance_count": 0}}, "resources.instance_count: must be at least 1"),
        ({"resources": {"instance_count": "2"}}, "resources.instance_count: expected a whole number such as 2"),
        ({"resources": "x"}, "resources: expected an object such as"),
        ({"distribution": {"type": "tensorflow", "process_count_per_instance": 1}}, "does not go with type tensorflow"),
        ({"distribution": {"type": "mpi", "worker_count": 1}}, "distribution.worker_count: does not go with type mpi"),
        ({"inputs": {"a-b": {"path": "x"}}}, "inputs.a-b: expected the name of a variable"),
        ({"inputs": {"a": {"path": "x", "mode": "upload"}}}, "inputs.a.mode: expected 'ro_mount', 'download' or"),
        ({"inputs": {"a": {"path": " "}}}, "inputs.a.path: must not be empty"),
        ({"environment_variables": {"A": "a\0b"}}, "environment_variables.A: must not hold a NUL character"),
        ({"environment_variables": {"A": None}}, "environment_variables.A: expected text, a number, true or false"),
        ({"environment_variables": {"A": float("nan")}}, "environment_variables.A: expected text, a number"),
        ({"detach": "false"}, 'detach: expected true or false, got "false"'),
        ({"on_interrupt": "detatch"}, "(nearest valid: detach)"),
        ({"retry": -1}, "retry.max: must be at least 0"),
        ({"retry": {"max": 1, "on": ["preemptions"]}}, "retry.on.0: expected 'preemption', 'capacity' or 'service'"),
        ({"identity": {"type": "aml_token", "client_id": "x"}}, "identity.client_id: goes with type managed only"),
        ({"display_name": "a\nb"}, "display_name: must be one line of printable characters"),
        ({"tags": {"a": [1]}}, "tags.a: expected text, a number, true or false, got a list"),
        ({"tags": {"": "a"}}, "tags.: must not be empty"),
        ({"snapshot": {"include": "data/"}}, 'snapshot.include: expected a list such as ["a", "b"], got "data/"'),
        ({"submission_id": ""}, "submission_id: must not be empty"),
        ({"submission_id": "x" * 251}, "submission_id: must have at most 250 characters"),
        ({"profiles": {}}, "profiles: belong in mlflow-azure.yaml"),
        ({1: 2}, "a key must be text"),
        ({"tags": {"\ud800": "a"}}, ": expected text in valid Unicode"),
        ({"environment_variables": {"A": "\ud800"}}, "environment_variables.A: must be valid Unicode"),
        ({"\ud800": 1}, "backend_config: expected text in valid Unicode"),
        ({"compute": "a" * 10**6}, "got text of 1000000 characters"),
    ],
)
def test_what_cannot_be_is_refused_in_words(raw: Any, said: str) -> None:
    assert said in refusal(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"compue": "x"}, "compue: unknown key (nearest valid: compute)"),
        ({"COMPUTER": "x"}, "COMPUTER: unknown key (nearest valid: compute)"),
        ({"timeOut": None}, "timeOut: unknown key (nearest valid: timeout)"),
        ({"instance_type": "x"}, "instance_type: unknown key (nearest valid: resources.instance_type)"),
        ({"snapshot": {"max_sise": 1}}, "snapshot.max_sise: unknown key (nearest valid: max_size)"),
        ({"inputs": {"path": {"path": "x", "typ": "x"}}}, "inputs.path.typ: unknown key (nearest valid: type)"),
        ({"compute": {"name": "c", "size": "S", "teir": 1}}, "compute.teir: unknown key (nearest valid: tier)"),
        ({"<text>": 1, "[key]": 2}, "<text>: unknown key (valid: compute, "),
        ({"zzz": 1}, "zzz: unknown key (valid: compute, workspace, environment, "),
    ],
)
def test_an_unknown_key_names_the_nearest_valid_one(raw: dict[str, Any], said: str) -> None:
    assert said in refusal(raw)


def test_every_mistake_is_reported_at_once() -> None:
    line = refusal(
        {"compue": 1, "timeout": [], "snapshot": {"max_size": "x"}, "retry": 1000, "COMPUTE": 5, "zz": 1, "yy": 1}
    )
    for key in ("compue", "timeout", "snapshot.max_size", "retry.max", "compute", "zz", "yy"):
        assert f"{key}: " in line
    assert line.startswith("backend_config: ")
    assert line.count("(valid: ") == 1


CANARY = "hunter2-canary"


@pytest.mark.parametrize(
    "raw",
    [
        {"secrets": {"TOKEN": CANARY}},
        {"secrets": {CANARY + "!": "env:X"}},
        {"secrets": CANARY},
        {"secrets": {"TOKEN": {"value": CANARY}}},
        {"environment_variables": {"A": [CANARY]}},
        {"environment_variables": CANARY},
        {"password": CANARY},
        {"compute": {"token": CANARY}},
        {"timeout": f"AccountKey={CANARY}"},
        {"timeout": f"https://user:{CANARY}@host"},
        {"docker_auth": CANARY},
        {"docker_auth": {"password": [CANARY]}},
    ],
)
def test_no_refused_secret_is_shown(raw: dict[str, Any]) -> None:
    assert CANARY not in refusal(raw)


def test_a_secret_cannot_be_a_plain_variable_too() -> None:
    line = refusal({"secrets": {"A": "env:A"}, "environment_variables": {"A": "1"}})
    assert line == "backend_config: secrets: A cannot be in environment_variables too"


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load({}).config.compute = "docker"  # type: ignore[misc]  # that it is frozen is what is tried here


# ── keys that are not ours ───────────────────────────────────────────────────────────────────────────────────────────


def test_mlflows_own_keys_are_split_off() -> None:
    raw = {
        "compute": "docker",
        "ENV_MANAGER": "local",
        "SYNCHRONOUS": False,
        "DOCKER_ARGS": {"ipc": "host", "rm": True},
        "STORAGE_DIR": "/data dir",
        "build_image": True,
        "docker_auth": {"username": "me", "password": CANARY},
        "_mlflow_local_backend_run_id": "abc",
    }
    before = dict(raw)
    rest, options = split_mlflow_options(raw)
    assert rest == {"compute": "docker"}
    assert options == MlflowOptions(
        env_manager="local",
        synchronous=False,
        docker_args={"ipc": "host", "rm": True},
        storage_dir=Path("/data dir"),
        build_image=True,
        docker_auth={"username": SecretStr("me"), "password": SecretStr(CANARY)},
    )
    assert CANARY not in repr(options)
    assert load(raw).mlflow == options
    assert raw == before


def test_mlflow_has_no_other_keys() -> None:
    source = Path(str(distribution("mlflow").locate_file("mlflow/projects/utils.py"))).read_text("utf-8")
    keys = set(re.findall(r'^PROJECT_\w+ = "(\w+)"$', source, re.MULTILINE))
    assert {"ENV_MANAGER", "SYNCHRONOUS"} <= keys
    assert split_mlflow_options(dict.fromkeys(keys)) == ({}, MlflowOptions())


def test_mlflows_keys_with_other_values_are_refused() -> None:
    line = refusal({"SYNCHRONOUS": "no", "DOCKER_ARGS": [1], "STORAGE_DIR": 3, "ENV_MANAGER": 1, "build_image": 1})
    for key in ("SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "ENV_MANAGER", "build_image"):
        assert f"{key}: expected " in line


@pytest.mark.parametrize(
    ("raw", "asked", "note"),
    [
        ({"COMPUTE": "cpu-cluster"}, {"compute": "cpu-cluster"}, 'COMPUTE is now "compute": "cpu-cluster"'),
        ({"COMPUTE": "LOCAL"}, {"compute": "local"}, 'COMPUTE is now "compute": "local"'),
        ({"COMPUTE": None}, {"compute": "local"}, 'COMPUTE is now "compute": "local"'),
        ({"COMPUTE": "c", "compute": "c"}, {"compute": "c"}, 'COMPUTE is now "compute": "c"'),
        ({"USE_CONDA": False}, {"environment": "current"}, 'USE_CONDA: false is now "environment": "current"'),
        ({"USE_CONDA": "False"}, {"environment": "current"}, 'USE_CONDA: false is now "environment": "current"'),
        ({"USE_CONDA": "True"}, {}, 'USE_CONDA: true is the default now: leave "environment" out'),
        ({"STREAM_OUTPUT": "true"}, {}, "STREAM_OUTPUT has no successor: output always streams to whoever waits"),
        ({"STREAM_OUTPUT": False}, {}, '"detach": true returns at once'),
    ],
)
def test_the_incumbents_keys_are_understood(raw: dict[str, Any], asked: dict[str, Any], note: str) -> None:
    loaded = load(raw)
    assert loaded.config.model_dump(exclude_unset=True) == asked
    assert len([line for line in loaded.notes if line.endswith(note)]) == 1


def test_an_address_is_written_down_without_its_credentials() -> None:
    config = BackendConfig.model_validate({"inputs": {"a": {"path": "https://me:canary@example.com/x?sig=canary"}}})
    assert "canary" not in config.model_dump_json()
    assert config.inputs["a"].path.count("canary") == 2


def test_use_conda_says_nothing_about_a_cluster() -> None:
    loaded = load({"COMPUTE": "cpu-cluster", "USE_CONDA": False}).for_target("cluster")
    assert loaded.config.environment is None
    assert 'USE_CONDA: false says nothing about a remote compute: leave "environment" out' in loaded.notes


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"COMPUTE": "a", "compute": "b"}, "COMPUTE: contradicts compute"),
        ({"USE_CONDA": "False", "environment": {"build": "auto"}}, "USE_CONDA: false contradicts environment"),
        ({"USE_CONDA": True, "environment": "current"}, "USE_CONDA: true contradicts environment"),
        ({"USE_CONDA": "perhaps"}, 'USE_CONDA: expected true or false, got "perhaps"'),
        ({"STREAM_OUTPUT": 2}, "STREAM_OUTPUT: expected true or false, got 2"),
    ],
)
def test_an_old_key_that_contradicts_a_new_one_is_refused(raw: dict[str, Any], said: str) -> None:
    assert said in refusal(raw)


# ── targets ──────────────────────────────────────────────────────────────────────────────────────────────────────────

DESIGN = {
    "local docker cluster": "compute environment inputs outputs environment_variables detach on_interrupt timeout"
    " tags snapshot submission_id profile",
    "local docker": "secrets",
    "local": "workdir",
    "docker cluster": "resources",
    "cluster": "workspace distribution retry queue_settings identity services display_name",
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_key_that_the_target_cannot_honour_is_refused(target: TargetName) -> None:
    places = {key: targets.split() for targets, keys in DESIGN.items() for key in keys.split()}
    assert set(places) == set(BackendConfig.model_fields)
    for key, targets in places.items():
        example = {
            "workdir": "project",
            "environment": {"inject_mlflow": True},
            "resources": {"shm_size": 1},
            "detach": True,
        }
        value = example.get(key) or (BackendConfig.model_fields[key].examples or ["cancel"])[0]
        config = BackendConfig.model_validate({key: value})
        if target in targets:
            check_honoured(config, target)
        else:
            with pytest.raises(ConfigError) as error:
                check_honoured(config, target)
            wanted = f"backend_config: {target} cannot honour {key} (works on {' and '.join(targets)}); remove it or"
            assert str(error.value).startswith(wanted)


@pytest.mark.parametrize(
    ("raw", "refused"),
    [
        (
            {"environment": "current"},
            {"docker": "environment (works on local)", "cluster": "environment (works on local)"},
        ),
        ({"environment": "azureml:x:1"}, {"local": "(works on cluster)", "docker": "environment (works on cluster)"}),
        (
            {"environment": {"image": "x", "build": "start"}},
            {"local": "environment.image", "docker": "environment.build"},
        ),
        ({"resources": {"gpus": 1, "cpus": 1.0}}, {"local": "resources (", "cluster": "resources.gpus"}),
        ({"resources": {"instance_count": 1}}, {"local": "resources (", "docker": "resources.instance_count"}),
        ({"inputs": {"a": {"path": "x", "mode": "direct"}}}, {"local": "inputs.a.mode", "docker": "inputs.a.mode"}),
        ({"inputs": {"a": {"path": "x", "type": "uri_file", "mode": None}}}, {}),
    ],
)
def test_some_values_and_inner_keys_are_for_some_targets(raw: dict[str, Any], refused: dict[TargetName, str]) -> None:
    for target in TARGETS:
        if target not in refused:
            check_honoured(BackendConfig.model_validate(raw), target)
            continue
        with pytest.raises(ConfigError) as error:
            check_honoured(BackendConfig.model_validate(raw), target)
        assert refused[target] in str(error.value)


# ── anything at all ──────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(["local", "env:A", "2h", "1GB", "azureml:x:1", "1e9s"])
SCALAR = st.none() | st.booleans() | st.integers() | st.integers(min_value=10**300) | st.floats() | TEXT
BLOCKS = [json_schema(), *json_schema()["$defs"].values()]
NAMES = st.sampled_from(sorted({key for block in BLOCKS for key in block["properties"]}))
OLD = st.sampled_from(
    ["COMPUTE", "USE_CONDA", "STREAM_OUTPUT", "ENV_MANAGER", "DOCKER_ARGS", "docker_auth", "STORAGE_DIR"]
)
JSON = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=4), max_leaves=12
)


@settings(max_examples=400, deadline=None, database=None)
@given(JSON | st.dictionaries(NAMES | OLD | TEXT, JSON, max_size=6))
def test_any_json_is_a_configuration_or_a_mistake(raw: Any) -> None:
    try:
        loaded = load(raw)
    except ConfigError as error:
        assert "\n" not in str(error)
        str(error).encode()
        return
    assert BackendConfig.model_validate(loaded.config.model_dump(exclude_unset=True)) == loaded.config
    for target in TARGETS:
        try:
            check_honoured(loaded.for_target(target).config, target)
        except ConfigError as error:
            assert "cannot honour" in str(error)


# ── cost ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_without_files_imports_neither_yaml_nor_anything_large() -> None:
    code = (
        "import sys; from mlflow_azure_backend.config import load_config;"
        "load_config({}, project_folder=None, environ={});"
        "print({'yaml', 'mlflow', 'azure', 'docker', 'rich'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "none\n"
