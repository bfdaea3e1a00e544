"""``mlflow-azure lock``: a lock beside the project that its runs use, and an honest answer in CI."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from mlflow_azure_backend.cli import main
from mlflow_azure_backend.environment.indexes import read_machine

if TYPE_CHECKING:
    from tests.conda_channel import Channel, CondaServer
    from tests.environment.conftest import MakeWheel

Write = Callable[[Mapping[str, str]], Path]
SAMPLES = Path(__file__).parent.parent.parent / "sample_projects"
PROJECT = {
    "MLproject": "python_env: python_env.yaml\nentry_points: {main: {command: 'true'}}\n",
    "python_env.yaml": "dependencies: [--no-index, --find-links wheels, alpha]\n",
}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def project(
    home: Path,
    write_project: Write,
    make_wheel: MakeWheel,
) -> Path:
    made = write_project(PROJECT)
    make_wheel("alpha", "1.0", into=made / "wheels")
    return made


def test_it_is_written_checked_upgraded_and_used(project: Path, make_wheel: MakeWheel) -> None:
    missing = ask("lock", str(project), "--check")
    assert (missing.exit_code, "carries no pylock.toml" in missing.output) == (1, True)
    before = {path.name for path in project.iterdir()}
    written = ask("lock", str(project))
    assert (written.exit_code, "pylock.toml is written: 1 package for python" in written.output) == (0, True)
    assert {path.name for path in project.iterdir()} - before == {"pylock.toml"}
    text = (project / "pylock.toml").read_text()
    make_wheel("alpha", "2.0", into=project / "wheels")
    assert ask("lock", str(project)).exit_code == 0
    assert (project / "pylock.toml").read_text() == text
    facts = json.loads(ask("lock", str(project), "--check", "--json").stdout)
    assert (facts["is_current"], facts["packages"]) == (True, {"alpha": "1.0"})
    plan = json.loads(ask("plan", str(project), "--json").stdout)
    assert (plan["environment"]["key"], plan["environment"]["packages"]) == (facts["key"], {"alpha": "1.0"})
    assert "the environment is locked by pylock.toml" in plan["notes"]
    settings = json.dumps({"environment": {"channels": ["conda-forge"], "solver": "mamba"}})
    plan = json.loads(ask("plan", str(project), "--json", "-c", settings).stdout)
    why = "is not used: the job does not run in an environment of conda's"
    assert [note for note in plan["notes"] if why in note] == [
        f"environment.{name} {why}" for name in ("channels", "solver")
    ]
    upgraded = json.loads(ask("lock", str(project), "--upgrade", "--json").stdout)
    assert upgraded["packages"] == {"alpha": "2.0"}
    (project / "python_env.yaml").write_text(PROJECT["python_env.yaml"].replace("alpha", "alpha<2"))
    stale = ask("lock", str(project), "--check")
    assert stale.exit_code == 1
    assert "pylock.toml is stale: python_env.yaml:1 asks for alpha<2, and it has alpha 2.0;" in stale.output
    plan = json.loads(ask("plan", str(project), "--json").stdout)
    assert plan["environment"]["packages"] == {"alpha": "1.0"}
    assert any(note.startswith("pylock.toml is not used: ") for note in plan["notes"])


@pytest.mark.package_index
@pytest.mark.parametrize("sample", ["multi_step", "sklearn_diabetes"])
def test_the_sample_projects_can_be_locked(
    home: Path, tmp_path: Path, sample: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without what pip's settings may have of folders of this machine, whose files no pylock.toml can name.
    monkeypatch.setenv("UV_DEFAULT_INDEX", read_machine(os.environ).indexes.index_url or "https://pypi.org/simple")
    project = tmp_path / sample
    shutil.copytree(SAMPLES / sample, project)
    assert ask("lock", str(project)).exit_code == 0
    facts = json.loads(ask("lock", str(project), "--check", "--json").stdout)
    assert facts["is_current"]
    assert {"mlflow", "scikit-learn", "pip"} <= facts["packages"].keys()


def test_what_is_ignored_is_said(project: Path) -> None:
    (project / "python_env.yaml").write_text(PROJECT["python_env.yaml"].replace("alpha", "--prefer-binary, alpha"))
    written = ask("lock", str(project))
    assert written.exit_code == 0
    assert "python_env.yaml:1: --prefer-binary is ignored: uv knows no such preference" in written.output


def test_a_project_from_a_zip_file_has_no_folder_to_write_to(project: Path, tmp_path: Path) -> None:
    uri = shutil.make_archive(str(tmp_path / "project"), "zip", project)
    refused = ask("lock", uri)
    assert refused.exit_code == 1
    assert "a project from git or a zip file has no folder to write a lock to; only --check works" in refused.output
    assert "carries no pylock.toml" in ask("lock", uri, "--check").output


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"python_env.yaml": "dependencies: [--no-index, nowhere]"}, "no package named nowhere"),
        ({"python_env.yaml": "dependencies: [-e .]"}, "-e . cannot be locked"),
    ],
)
def test_what_cannot_be_locked_is_refused_in_one_line(
    project: Path, write_project: Write, files: dict[str, str], expected: str
) -> None:
    write_project(files)
    done = ask("lock", str(project))
    assert done.exit_code == 1
    assert expected in done.output
    assert len(done.output.splitlines()) == 1
    assert not list(project.glob("*lock*"))


def test_the_current_interpreter_has_no_lock(project: Path) -> None:
    done = ask("lock", str(project), "--backend-config", '{"environment": "current"}')
    assert done.exit_code == 1
    assert "the project runs in the current interpreter: no lock for it; a project with a" in done.output


def test_upgrade_and_check_exclude_each_other(project: Path) -> None:
    assert "only one of --check and --upgrade" in ask("lock", str(project), "--check", "--upgrade").output


def test_a_conda_project_s_lock_is_written_checked_upgraded_and_used(
    home: Path, write_project: Write, lab: Channel, conda_forge: CondaServer, conda: Path
) -> None:
    wanted = "channels: [lab]\nplatforms: [linux-64]\ndependencies:\n  - beta <{}\n"
    project = write_project(
        {
            "MLproject": "conda_env: conda.yaml\nentry_points: {main: {command: 'true'}}\n",
            "conda.yaml": wanted.format(2),
        }
    )
    missing = ask("lock", str(project), "--check")
    assert (missing.exit_code, "carries no conda-lock.yml" in missing.output) == (1, True)
    written = ask("lock", str(project))
    assert (written.exit_code, "conda-lock.yml is written: 1 package" in written.output) == (0, True)
    text = (project / "conda-lock.yml").read_text()
    assert ask("lock", str(project), "--check").exit_code == 0
    plan = json.loads(ask("plan", str(project), "--json").stdout)
    assert plan["environment"]["packages"] == {"beta": "1.0"}
    assert "the environment is locked by conda-lock.yml" in plan["notes"]
    (project / "conda.yaml").write_text(wanted.format(3))
    stale = ask("lock", str(project), "--check")
    assert (stale.exit_code, len(stale.output.splitlines())) == (1, 1)
    assert "conda-lock.yml is stale: the project asks for something else than when it was locked;" in stale.output
    assert (project / "conda-lock.yml").read_text() == text
    plan = json.loads(ask("plan", str(project), "--json").stdout)
    assert plan["environment"]["packages"] == {"beta": "2.0"}
    assert any(note.startswith("conda-lock.yml is not used: ") for note in plan["notes"])
    upgraded = json.loads(ask("lock", str(project), "--upgrade", "--json").stdout)
    assert upgraded["packages"] == {"beta": "2.0"}
    assert ask("lock", str(project), "--check").exit_code == 0
    assert not conda.with_name("asked").exists()
    (project / "mlflow-azure.yaml").write_text(f"environment: {{solver: '{conda}'}}\n")
    assert ask("lock", str(project), "--upgrade").exit_code == 0
    assert "create --prefix" in conda.with_name("asked").read_text()
    assert ask("lock", str(project), "--check").exit_code == 0
