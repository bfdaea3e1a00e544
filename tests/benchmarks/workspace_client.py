"""A process that logs and reads artifacts with MLflow's own calls; whose plugin carries them is its environment's.

Reads ``["up", PATH]``, ``["down", RUN]`` and ``["metrics", NUMBER]`` as lines of JSON; answers each with the run, and the seconds that it took on
the clock and on the processor.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow import MlflowClient

logging.disable(logging.INFO)
CLIENT = MlflowClient()
EXPERIMENT = CLIENT.create_experiment(f"bench {time.time_ns()}")


def up(path: str, run: str) -> None:
    """Log a file or a folder."""
    if Path(path).is_dir():
        CLIENT.log_artifacts(run, path, "model")
    else:
        CLIENT.log_artifact(run, path, "model")


def down(uri: str, folder: str) -> None:
    """Read all of it again."""
    mlflow.artifacts.download_artifacts(f"{uri}/model", dst_path=folder)


def metrics(run: str, number: int) -> None:
    """Log so many values, one by one."""
    for step in range(number):
        CLIENT.log_metric(run, "loss", 1 / (step + 1), step=step)


for line in sys.stdin:
    action, what = json.loads(line)
    run_id = CLIENT.create_run(EXPERIMENT).info.run_id if action != "down" else what
    artifacts = CLIENT.get_run(run_id).info.artifact_uri
    place = tempfile.mkdtemp()
    wall, cpu = time.perf_counter(), time.process_time()
    if action == "up":
        up(what, run_id)
    elif action == "metrics":
        metrics(run_id, int(what))
    else:
        down(artifacts, place)
    print(json.dumps([run_id, time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
    shutil.rmtree(place)
