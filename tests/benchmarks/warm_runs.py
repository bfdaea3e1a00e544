"""A process that runs the project of its argument once for each line of its standard input, which names
a backend and an environment manager, and ``build`` to have the project built into an image.

It answers with seconds of wall and of CPU time.
"""

from __future__ import annotations

import logging
import sys
from functools import partial

import mlflow

from tests.benchmarks.measure import timed


def main(project: str) -> None:
    """Until standard input ends."""
    logging.disable()
    for line in sys.stdin:
        backend, env_manager, *build = line.split()
        run = partial(
            mlflow.projects.run,
            project,
            backend=backend,
            env_manager=env_manager,
            experiment_id="0",
            build_image=bool(build),
        )
        cost = timed(run)()
        print(cost.wall, cost.cpu, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
