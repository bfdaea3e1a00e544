"""``make bench``: measure, show, and write ``docs/benchmarks.md``. ``make bench ARGS="P2 P5"`` measures a few.

The lines of the others stay as they are, so that a slow one can be measured by itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import (
    artifacts,
    cluster_jobs,
    containers,
    emulated_workspace,
    environments,
    local_runs,
    long_journal,
    many_runs,
    project_files,
    supervising,
    tracking,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import line_of, update

CASES = {
    **local_runs.CASES,
    **many_runs.CASES,
    **project_files.CASES,
    **supervising.CASES,
    **environments.CASES,
    **long_journal.CASES,
    **containers.CASES,
    **cluster_jobs.CASES,
    **artifacts.CASES,
    **emulated_workspace.CASES,
    **tracking.CASES,
}
"""What measures each goal, by its id."""


def main(asked: list[str]) -> int:
    """Measure the goals that are asked for, or all; the exit code says only whether that worked, not what was met."""
    unknown = set(asked) - CASES.keys()
    if unknown:
        print(f"there is no {', '.join(sorted(unknown))}; there are: {' '.join(CASES)}", file=sys.stderr)
        return 2
    load, _, _ = os.getloadavg()
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-bench-") as folder:
        bench = Bench(Path(folder).resolve())
        try:
            for identity in asked or CASES:
                started = time.monotonic()
                results = list(CASES[identity](bench))
                for result in results:
                    print(line_of(result), flush=True)
                update(results, load)
                print(f"{identity} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        finally:
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
