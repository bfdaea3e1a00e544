"""Which image: found, pulled, refused; every refusal is one line that names its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException
from pydantic import SecretStr

from mlflow_azure_backend.containers.engine import Engine, connect
from mlflow_azure_backend.containers.images import ensure_image, find_image
from mlflow_azure_backend.errors import BackendError, EnvironmentUnavailable, TargetError
from tests.containers.conftest import Launch, Registry, docker_says, shell

pytestmark = pytest.mark.docker

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The engine."""
    with connect() as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_image_stays(registry: Registry) -> Iterator[None]:
    yield
    if images := docker_says("images", "--quiet", registry.name("*")):
        docker_says("rmi", "--force", *set(images.split()))


def no_progress(_text: str) -> None:
    """Nobody hears it."""


def test_a_digest_is_pulled_with_a_login_and_then_here(engine: Engine, registry: Registry) -> None:
    registry.login = "me:canary"
    digest = registry.add("1", {"file": b"x" * 100_000})
    name, heard = f"{registry.name('private')}@{digest}", list[str]()
    auth = {key: SecretStr(value) for key, value in (("username", "me"), ("password", "canary"))}
    assert find_image(name) is None
    image, was_here = ensure_image(engine, name, auth=auth, progress=heard.append)
    assert not was_here
    assert image.identity == image.digest == name
    assert heard[0] == f"pulling {name}"
    asked = len(registry.asked)
    assert ensure_image(engine, name, auth=None, progress=heard.append) == (image, True)
    assert len(registry.asked) == asked
    assert find_image(name) == image


@pytest.mark.parametrize(
    ("refusal", "login", "said"),
    [
        (None, "me:canary", "the registry refuses image {name}"),
        (403, None, "the registry refuses image {name}"),
        (500, None, "pulling image {name} failed"),
        (None, None, "there is no image {name}"),
    ],
)
def test_a_registry_that_refuses_is_named(
    engine: Engine, registry: Registry, refusal: int | None, login: str | None, said: str
) -> None:
    registry.refusal, registry.login = refusal, login
    name = registry.name("nothing:1")
    with pytest.raises(EnvironmentUnavailable) as error:
        ensure_image(engine, name, auth=None, progress=no_progress)
    assert str(error.value).startswith(said.format(name=name))
    assert error.value.next_step
    assert "\n" not in str(error.value)


def test_a_registry_that_is_not_there_is_named(engine: Engine, registry: Registry) -> None:
    name = registry.name("image:1")
    registry.server_close()
    with pytest.raises(EnvironmentUnavailable, match="connection refused"):
        ensure_image(engine, name, auth=None, progress=no_progress)


def test_an_image_that_was_built_here_and_deleted_is_named(engine: Engine) -> None:
    with pytest.raises(EnvironmentUnavailable, match="is not here any more, and no registry has it; build it again"):
        ensure_image(engine, f"sha256:{'0' * 64}", auth=None, progress=no_progress)


def test_an_image_for_another_architecture_is_refused(engine: Engine, registry: Registry) -> None:
    registry.add("1", {"file": b""}, architecture="s390x")
    with pytest.raises(EnvironmentUnavailable, match=r"is for another architecture: s390x, and this machine is \w+;"):
        ensure_image(engine, registry.name("other:1"), auth=None, progress=no_progress)


def test_an_image_without_a_shell_is_named(
    write_project: Write, launch: Launch, registry: Registry, only_run: Callable[[], Run]
) -> None:
    registry.add("1", {"file": b""})
    image = registry.name("empty:1")
    with pytest.raises(ExecutionException):
        launch(write_project({"MLproject": shell("true", image=image)}), {"environment": None})
    assert only_run().data.tags["mlflow_azure.cause"] == f"image {image} has no shell that an entry point could run in"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("unix:///nowhere/docker.sock", "unix:///nowhere/docker.sock: the docker engine is not running; start it"),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1: the docker engine is not running; start it"),
        ("tcp://far.away:2376", "tcp://far.away:2376: the docker engine is on another machine, which does not see"),
        ("ssh://me@far.away", "ssh://me@far.away: the docker engine is on another machine"),
    ],
)
def test_an_engine_that_is_not_here_is_named(host: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(TargetError) as error:
        connect()
    assert str(error.value).startswith(said)
    assert isinstance(error.value, BackendError)
