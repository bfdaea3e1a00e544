"""Inputs and outputs that the configuration names: found by Azure ML's variables, the same on every target."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from mlflow_azure_backend.submitted_run import AzureSubmittedRun

Launch = Callable[..., AzureSubmittedRun]
Artifact = Callable[[str, str], bytes]
Write = Callable[[Mapping[str, str]], Path]

READ = """\
import os, pathlib
for name, place in sorted(os.environ.items()):
    if name.startswith("AZURE_ML_INPUT_"):
        path = pathlib.Path(place)
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        print(name.removeprefix("AZURE_ML_INPUT_"), path.is_absolute(), *(file.read_text() for file in files))
"""
WRITE = """\
import os, pathlib
place = {name: pathlib.Path(os.environ["AZURE_ML_OUTPUT_" + name]) for name in ("model", "report", "kept", "table")}
assert place["model"].is_dir() and place["kept"].is_dir()
(place["model"] / "deep er").mkdir()
(place["model"] / "deep er" / "weights").write_text("w")
for name in ("report", "table"):
    place[name].with_suffix(".tmp").write_text(name)
    place[name].with_suffix(".tmp").rename(place[name])
(place["kept"] / "file").write_text("k")
"""


def project(script: str) -> dict[str, str]:
    declared = {"name": "data", "entry_points": {"main": {"command": "python script.py"}}}
    return {"MLproject": json.dumps(declared), "script.py": script}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a web server of the test's own, which has the files of ``web``."""
    (tmp_path / "web").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.not_on("cluster", reason="a workspace reads data by its own addresses, and fetches none from here")
def test_inputs_are_found_wherever_they_are(
    write_project: Write, launch: Launch, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_project({**project(READ), ".gitignore": "data/\n", "data/deep/left out.csv": "ignored"})
    client = tmp_path / "it's the client's"
    (client / "near by").mkdir(parents=True)
    (client / "near by" / "in.csv").write_text("relative")
    (tmp_path / "web" / "päth 1.csv").write_text("from the web")
    with mlflow.start_run() as earlier:
        mlflow.log_text("an artifact", "made/before.txt")
    monkeypatch.chdir(client)
    inputs = {
        "Near": {"path": "near by"},
        "file": {"path": "near by/in.csv", "type": "uri_file"},
        "ignored": {"path": str(folder / "data")},
        "uri": {"path": (client / "near by" / "in.csv").as_uri(), "type": "uri_file"},
        "web": {"path": f"{web}/p%C3%A4th%201.csv", "type": "uri_file"},
        "made": {"path": f"runs:/{earlier.info.run_id}/made"},
    }
    submitted = launch(folder, {"inputs": inputs}, storage_dir=str(tmp_path / "storage"))
    assert "".join(submitted.logs()).splitlines() == [
        "Near True relative",
        "file True relative",
        "ignored True ignored",
        "made True an artifact",
        "uri True relative",
        "web True from the web",
    ]
    assert sorted(path.name for path in (tmp_path / "storage").rglob("*.*")) == ["before.txt", "päth 1.csv"]


@pytest.mark.not_on("cluster", reason="a job in a workspace writes to its datastores")
def test_outputs_become_artifacts_or_stay_where_they_were_wanted(
    write_project: Write, launch: Launch, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_project(project(WRITE))
    monkeypatch.chdir(tmp_path)
    outputs = {
        "model": {"type": "custom_model"},
        "report": {"type": "uri_file"},
        "kept": {"path": "it's kept/here"},
        "table": {"path": "tables/table 1.csv", "type": "uri_file"},
    }
    submitted = launch(folder, {"outputs": outputs})
    listed = mlflow.artifacts.list_artifacts(run_id=submitted.run_id, artifact_path="outputs")
    assert sorted(item.path for item in listed) == ["outputs/model", "outputs/report"]
    model = Path(mlflow.artifacts.download_artifacts(run_id=submitted.run_id, artifact_path="outputs/model"))
    assert (model / "deep er" / "weights").read_text() == "w"
    report = Path(mlflow.artifacts.download_artifacts(run_id=submitted.run_id, artifact_path="outputs/report/report"))
    assert report.read_text() == "report"
    assert (tmp_path / "it's kept/here/file").read_text() == "k"
    assert (tmp_path / "tables/table 1.csv").read_text() == "table"
    assert sorted(path.name for path in folder.iterdir()) == ["MLproject", "script.py"]
    assert not list(home.rglob("weights"))


REFUSED_EVERYWHERE = [
    (
        {"inputs": {"a": {"path": "nowhere"}, "b": {"path": "file", "type": "mltable"}, "train": {"path": "."}}},
        r"inputs.train: the project has a path parameter of that name; inputs.a: there is no /.*/nowhere;"
        r' inputs.b: /.*/file is a file: add "type": "uri_file"$',
    ),
    ({"inputs": {"a": {"path": ".", "type": "uri_file"}}}, r'inputs.a: /.* is a folder: leave out "type"'),
    ({"inputs": {"a": {"path": "http://127.0.0.1:1/x"}}}, r'inputs.a: a web address is one file: add "type"'),
]
REFUSED_ON_THIS_MACHINE = [
    (
        {"inputs": {"a": {"path": "http://me:canary@127.0.0.1:1/x", "type": "uri_file"}}},
        r"inputs.a: http://127.0.0.1:1/x cannot be downloaded: (?!.*canary).*check the address",
    ),
    ({"inputs": {"a": {"path": "azureml:data:1"}}}, r"inputs.a: azureml:data:1 is registered in a workspace"),
    ({"outputs": {"a": {"path": "s3://bucket/x"}}}, r"outputs.a: a job on this machine writes to a folder"),
    ({"outputs": {"a": {"path": "file"}}}, r"outputs.a: /.*/file is a file, and the output needs a folder"),
    ({"retry": 2}, r"(local|docker) cannot honour retry \(works on cluster\); remove it"),
]


@pytest.mark.parametrize(("config", "said"), REFUSED_EVERYWHERE)
def test_data_that_nobody_can_read_is_refused(
    write_project: Write, launch: Launch, config: dict[str, object], said: str
) -> None:
    refuses(write_project, launch, config, said)


@pytest.mark.not_on("cluster", reason="a workspace reads and writes other places, and takes machines away")
@pytest.mark.parametrize(("config", "said"), REFUSED_ON_THIS_MACHINE)
def test_what_a_job_on_this_machine_cannot_have_is_refused(
    write_project: Write, launch: Launch, config: dict[str, object], said: str
) -> None:
    refuses(write_project, launch, config, said)


@pytest.mark.not_on("local", "docker", reason="there an output may go to a folder")
def test_an_output_of_a_job_in_a_workspace_goes_to_no_folder_here(write_project: Write, launch: Launch) -> None:
    said = r"outputs.a: a job in a workspace cannot write to a folder of this machine; leave path out, or name"
    refuses(write_project, launch, {"outputs": {"a": {"path": "here"}}}, said)


def refuses(write_project: Write, launch: Launch, config: dict[str, object], said: str) -> None:
    """Nothing is left of a run that is refused."""
    declared = {"parameters": {"train": {"type": "path", "default": "."}}, "command": "true"}
    folder = write_project({"MLproject": json.dumps({"name": "data", "entry_points": {"main": declared}})})
    Path("file").write_text("")
    with pytest.raises(ExecutionException, match=said):
        launch(folder, config)
    assert not mlflow.search_runs(experiment_names=["contract"], output_format="list")
