"""``docker run``'s arguments, as the engine's API has them.

MLflow hands ``--docker-args`` to the docker command; the SDK wants fields. Each option that means something for a job
stands in the table; what is ours to decide, or unknown, is refused by name.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from docker.errors import DockerException
from docker.types import DeviceRequest, Ulimit
from docker.utils import parse_bytes, parse_devices, parse_env_file
from docker.utils.ports import build_port_bindings

from mlflow_azure_backend.errors import ConfigError

_NANO: Final = 1e9


@dataclass
class RunArguments:
    """What the arguments ask for.

    Attributes:
        host: Fields of the engine's host configuration, by the SDK's names.
        container: Fields of the container's own, by the SDK's names.
        binds: Volumes as ``docker run -v`` takes them.
        variables: Environment variables; None for one to be copied from the client's environment.
    """

    host: dict[str, Any] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
    binds: list[str] = field(default_factory=list)
    variables: dict[str, str | None] = field(default_factory=dict)


def gpu_request(asked: str | int) -> DeviceRequest:
    """``all`` GPUs, or so many, as ``docker run --gpus`` asks for them."""
    words = str(asked).removeprefix("device=")
    if str(asked).startswith("device="):
        return DeviceRequest(device_ids=words.strip('"').split(","), capabilities=[["gpu"]])
    return DeviceRequest(count=-1 if words == "all" else int(words), capabilities=[["gpu"]])


def read_arguments(given: Mapping[str, str | bool], further: Sequence[str]) -> RunArguments:
    """Read what MLflow was told (``-A name=value``) and what ``resources.docker_args`` holds.

    Raises:
        ConfigError: One is unknown, ours to decide, or has a value that it cannot have; names all of them.
    """
    arguments = RunArguments()
    problems: list[str] = []
    for name, value in (*_of_mlflow(given), *_of_words(further, problems)):
        if name in _OURS:
            problems.append(f"--{name} cannot be given: {_OURS[name]}")
        elif name in _FLAGS:
            if value is None:
                arguments.host[_FLAGS[name]] = True
            else:
                problems.append(f"--{name} takes no value")
        elif name in _VALUES:
            try:
                _VALUES[name](arguments, _needed(value))
            except (ValueError, DockerException, OSError) as error:
                problems.append(f"--{name}: {error}")
        elif name not in _WITHOUT_MEANING:
            near = difflib.get_close_matches(name, [*_VALUES, *_FLAGS], n=1)
            problems.append(f"--{name} is not known here" + (f", did you mean --{near[0]}?" if near else ""))
    if problems:
        raise ConfigError("; ".join(problems), where="docker arguments", next_step="correct or leave them out")
    return arguments


def notes_on(given: Mapping[str, str | bool], further: Sequence[str]) -> Iterator[str]:
    """A line for each argument that changes nothing here."""
    names = [name for name, _ in (*_of_mlflow(given), *_of_words(further, []))]
    for name in dict.fromkeys(names):
        if name in _WITHOUT_MEANING:
            yield f"docker argument --{name} has no effect: {_WITHOUT_MEANING[name]}"


def _of_mlflow(given: Mapping[str, str | bool]) -> Iterator[tuple[str, str | None]]:
    for name, value in given.items():
        yield _SHORT.get(name, name), None if value is True else str(value)


def _of_words(words: Sequence[str], problems: list[str]) -> Iterator[tuple[str, str | None]]:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            problems.append(f"{shlex.quote(word)} is no option")
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        if equals:
            yield name, value
        elif name in _VALUES or name in _OURS:
            yield name, rest.pop(0) if rest else None
        else:
            yield name, None


def _needed(value: str | None) -> str:
    if value is None:
        raise ValueError("a value is missing")
    return value


def _set(name: str, read: Callable[[str], Any] = str) -> Callable[[RunArguments, str], None]:
    def store(arguments: RunArguments, value: str) -> None:
        arguments.host[name] = read(value)

    return store


def _add(name: str, read: Callable[[str], Any] = str) -> Callable[[RunArguments, str], None]:
    def store(arguments: RunArguments, value: str) -> None:
        arguments.host.setdefault(name, []).append(read(value))

    return store


def _put(name: str, separator: str = "=") -> Callable[[RunArguments, str], None]:
    def store(arguments: RunArguments, value: str) -> None:
        key, _, inner = value.partition(separator)
        arguments.host.setdefault(name, {})[key] = inner

    return store


def _ulimit(value: str) -> Ulimit:
    name, _, limits = value.partition("=")
    soft, _, hard = limits.partition(":")
    return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))


def _env(arguments: RunArguments, value: str) -> None:
    name, equals, text = value.partition("=")
    arguments.variables[name] = text if equals else None


def _env_file(arguments: RunArguments, value: str) -> None:
    arguments.variables.update(pair.partition("=")[::2] for pair in parse_env_file(value))


def _publish(arguments: RunArguments, value: str) -> None:
    bindings = arguments.host.setdefault("port_bindings", {})
    for port, places in build_port_bindings([value]).items():
        bindings.setdefault(port, []).extend(places)
        inner, _, protocol = port.partition("/")
        arguments.container.setdefault("ports", []).append((int(inner), protocol or "tcp"))


def _inner(name: str, read: Callable[[str], Any] = str) -> Callable[[RunArguments, str], None]:
    def store(arguments: RunArguments, value: str) -> None:
        arguments.container[name] = read(value)

    return store


_SHORT: Final = {
    "c": "cpu-shares", "e": "env", "h": "hostname", "i": "interactive", "l": "label", "m": "memory", "net": "network",
    "p": "publish", "t": "tty", "u": "user", "v": "volume", "w": "workdir", "d": "detach", "it": "tty", "ti": "tty",
}  # fmt: skip
_OURS: Final = {
    "detach": "use the key detach",
    "entrypoint": "the image's own is used",
    "label": "ours find the container again; use the key tags for the run",
    "log-driver": "the log is ours",
    "mount": "use --volume",
    "name": "the run's id names it",
    "restart": "a job ends once",
    "workdir": "it is the project's folder",
}
_WITHOUT_MEANING: Final = {
    "interactive": "a job reads nothing",
    "rm": "the container is always removed",
    "tty": "a terminal would change the bytes of the log",
}
_FLAGS: Final = {
    "init": "init",
    "oom-kill-disable": "oom_kill_disable",
    "privileged": "privileged",
    "read-only": "read_only",
}
_VALUES: Final[Mapping[str, Callable[[RunArguments, str], None]]] = {
    "add-host": _put("extra_hosts", ":"),
    "cap-add": _add("cap_add"),
    "cap-drop": _add("cap_drop"),
    "cgroupns": _set("cgroupns"),
    "cpu-shares": _set("cpu_shares", int),
    "cpus": _set("nano_cpus", lambda value: int(float(value) * _NANO)),
    "cpuset-cpus": _set("cpuset_cpus"),
    "cpuset-mems": _set("cpuset_mems"),
    "device": _add("devices", lambda value: parse_devices([value])[0]),
    "dns": _add("dns"),
    "dns-option": _add("dns_opt"),
    "dns-search": _add("dns_search"),
    "env": _env,
    "env-file": _env_file,
    "gpus": _add("device_requests", gpu_request),
    "group-add": _add("group_add"),
    "hostname": _inner("hostname"),
    "ipc": _set("ipc_mode"),
    "memory": _set("mem_limit", parse_bytes),
    "memory-reservation": _set("mem_reservation", parse_bytes),
    "memory-swap": _set("memswap_limit", parse_bytes),
    "memory-swappiness": _set("mem_swappiness", int),
    "network": _set("network_mode"),
    "oom-score-adj": _set("oom_score_adj", int),
    "pid": _set("pid_mode"),
    "pids-limit": _set("pids_limit", int),
    "platform": _inner("platform"),
    "publish": _publish,
    "runtime": _set("runtime"),
    "stop-timeout": _inner("stop_timeout", int),
    "security-opt": _add("security_opt"),
    "shm-size": _set("shm_size", parse_bytes),
    "storage-opt": _put("storage_opt"),
    "sysctl": _put("sysctls"),
    "tmpfs": _put("tmpfs", ":"),
    "ulimit": _add("ulimits", _ulimit),
    "user": _inner("user"),
    "userns": _set("userns_mode"),
    "uts": _set("uts_mode"),
    "volume": lambda arguments, value: arguments.binds.append(value),
    "volumes-from": _add("volumes_from"),
}
