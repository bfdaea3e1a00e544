"""The oldest MLflow that we promise to work with; the other tests run on the newest, and `make matrix` on some between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
OLDEST = "2.22"


@pytest.mark.package_index
@pytest.mark.timeout(900)
def test_the_oldest_mlflow_keeps_the_contract() -> None:
    assert f'"mlflow>={OLDEST}"' in (ROOT / "pyproject.toml").read_text()
    tools = [str(Path(find_uv_bin()).parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        [ROOT / "tools" / "matrix", OLDEST],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PATH": os.pathsep.join(tools)},
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"MLflow {OLDEST} "), done.stdout
