"""Row 39 for environment files: whatever they hold, they are read in bounded time or refused in one line."""

from __future__ import annotations

import os
import random
import resource
import time
from pathlib import Path

import pytest

from mlflow_azure_backend.environment.spec import Declared, read_environment
from mlflow_azure_backend.errors import BackendError
from tests.fuzzing import damaged

CASES = 10_000 if os.environ.get("MLFLOW_AZURE_FAULT_SEED") == "all" else 400
PARTS = 4
FILES: dict[str, str] = {
    "python_env.yaml": "python: '3.11'\nbuild_dependencies: [pip, 'setuptools>=60']\ndependencies:\n"
    "  - -r requirements.txt\n  - alpha==1.0; python_version > '3'\n  - beta[x,y]>=2,<3\n",
    "conda.yaml": "name: x\nchannels: [conda-forge, {url: 'https://127.0.0.1/c'}]\ndependencies:\n  - python=3.11\n"
    "  - numpy>=1.20,<3\n  - conda-forge::scipy=1.11.*=py311_0\n  - pip\n  - pip:\n    - -r requirements.txt\n    - alpha\n",
    "requirements.txt": "# words\n-c constraints.txt\n--find-links wheels\nalpha==1.0 \\\n    --hash=sha256:00\n"
    "beta @ file:///b.whl\n-e .\ngamma[x]~=2.1 ; sys_platform == 'linux'\n",
    "constraints.txt": "alpha<2\ndelta!=1.*\n",
}


@pytest.mark.parametrize("part", range(PARTS))
def test_a_damaged_environment_file_is_read_or_refused_in_one_line(tmp_path: Path, part: int) -> None:
    dice = random.Random(f"environment {part}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES // PARTS):
        victim = dice.choice(sorted(FILES))
        for name, text in FILES.items():
            (tmp_path / name).write_bytes(damaged(text, dice) if name == victim else text.encode())
        kind: Declared = "conda_env" if victim == "conda.yaml" or dice.random() < 0.3 else "python_env"
        file = tmp_path / ("conda.yaml" if kind == "conda_env" else "python_env.yaml")
        begun = time.process_time()
        try:
            read_environment(kind, file, folder=tmp_path, env_manager=None, current=False)
        except BackendError as error:
            assert "\n" not in str(error), (part, case)
            assert tmp_path.name in str(error) or any(name in str(error) for name in FILES), (part, case, str(error))
        assert time.process_time() - begun < 1.0, (part, case)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
