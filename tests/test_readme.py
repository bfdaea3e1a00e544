"""The README is true: what it shows is what a run prints, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?m)^    \$ (mlflow run .*)\n((?:    .*\n|\n(?=    ))*)", README)


def normal(text: str) -> list[str]:
    """Lines without what differs from run to run: times, ids, names, versions, folders."""
    for pattern, stand_in in {
        r"\d+\.\d+s": "TIME",
        r"\b[0-9a-f]{7,8}\b": "ID",
        r"\b[a-z]+-[a-z]+-\d+\b": "NAME",
        r"azureml \d[\d.]*": "azureml VERSION",
        r"python 3\.\d+, \d+ packages": "PYTHON",
        r'File "[^"]*/(\w+\.py)"': r'File "\1"',
        r"\d+ files?, [\d.]+ \w+": "FILES",
        r"cached|to be built": "STATE",
        r" +": " ",
    }.items():
        text = re.sub(pattern, stand_in, text)
    return [line.strip() for line in text.splitlines() if not re.search(r"(INFO|ERROR) mlflow|install|left out", line)]


def test_the_readme_shows_two_runs() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.package_index
@pytest.mark.parametrize(("command", "shown"), BLOCKS, ids=["success", "failure"])
def test_what_the_readme_shows_is_what_a_run_prints(home: Path, tmp_path: Path, command: str, shown: str) -> None:
    shutil.copytree(ROOT / "sample_projects", tmp_path / "sample_projects", ignore=shutil.ignore_patterns("outputs"))
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environ.pop("MLFLOW_TRACKING_URI", None)
    done = subprocess.run(
        command.split(), cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert normal(done.stdout) == normal(shown)


def test_the_configuration_in_the_readme_is_valid() -> None:
    from mlflow_azure_backend.config import load_config

    (text,) = re.findall(r"--backend-config '(.*)'", README)
    load_config(json.loads(text), project_folder=None, environ={})


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("**/*.md") if ".venv" not in path.parts)
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert not [target for target in targets if not ((ROOT / page).parent / target).exists()]
