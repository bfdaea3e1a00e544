"""An engine that fails while a job needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from tests.containers.conftest import Launch, OwnEngine, containers_of, shell

pytestmark = pytest.mark.docker

Write = Callable[[Mapping[str, str]], Path]


def test_an_engine_that_is_restarted_stopped_or_full_is_named(
    own_engine: OwnEngine,
    base_image: str,
    write_project: Write,
    launch: Launch,
) -> None:
    own_engine.load(base_image)
    folder = write_project({"MLproject": shell("echo started; sleep 600")})
    config = {"resources": {"docker_args": "--network none --stop-timeout 1"}}
    submitted = launch(folder, config, synchronous=False)
    assert next(submitted.logs(follow=True)) == "started\n"
    own_engine.stop()
    own_engine.start()
    assert submitted.wait() is False
    tags = mlflow.get_run(submitted.run_id).data.tags
    assert tags["mlflow_azure.reason"] == "lost"
    assert tags["mlflow_azure.cause"] == "the docker engine was stopped or restarted while the job ran"
    assert not containers_of(submitted.run_id)

    rest = own_engine.root / "rest"
    with pytest.raises(OSError, match="No space left"), rest.open("wb") as stream:
        while True:
            stream.write(bytes(2**20))
    with pytest.raises(ExecutionException) as error:
        launch(folder, config)
    rest.unlink()
    assert "the disk of the docker engine is full" in str(error.value)

    own_engine.stop()
    with pytest.raises(ExecutionException, match="the docker engine is not running"):
        launch(folder)
