"""P1, P2, P3, P5, P18: one run on this machine, cold and warm."""

from __future__ import annotations

import contextlib
import http.client
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import RunStatus

from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import PAIRS, Cost, Goal, Result, by_turns, seconds


def cold_mlflow_run(bench: Bench) -> Iterator[Result]:
    """P1: what a user types today, with one option more."""
    project, store = str(bench.project("cold")), bench.store("cold")

    def run(*options: str) -> Cost:
        return bench.cost(["mlflow", "run", project, *options], MLFLOW_TRACKING_URI=store)

    ((wall, cpu),) = by_turns(
        lambda: run("--backend", "azureml", "--env-manager", "local"), lambda: run("--env-manager", "local")
    )
    yield Result(
        "P1",
        "`mlflow run . --backend azureml`",
        "`mlflow run . --env-manager local`",
        Goal(1.05),
        wall,
        cpu,
        lambda: _of_imports(bench, project, store),
    )


def _of_imports(bench: Bench, project: str, store: str) -> str:
    whole = seconds(lambda: bench.run(["mlflow", "run", project, "--env-manager", "local"], MLFLOW_TRACKING_URI=store))
    ours = seconds(lambda: bench.run([sys.executable, "-W", "ignore", "-c", "import mlflow_azure_backend.launching"]))
    theirs = seconds(lambda: bench.run([sys.executable, "-W", "ignore", "-c", "import mlflow.projects"]))
    return f"Loading our package takes {(ours - theirs) / whole:.1%} of the peer's time beside `import mlflow` ({theirs / whole:.0%})."


def warm_run(bench: Bench) -> Iterator[Result]:
    """P2: ``mlflow.projects.run`` in a process that has run one before, both backends by turns, with and without git."""
    plain, in_git = bench.project("warm"), bench.project("warm in git")
    bench.commit(in_git)
    for name, project in (("P2", plain), ("P2 in git", in_git)):
        with worker(bench, project, bench.store(f"warm-{name}")) as costs:
            ((wall, cpu),) = by_turns(costs("azureml", "local"), costs("local", "local"))
            why = _why_warm(bench, costs("local", "local"), bench.store(f"why-{name}"))
        what = f"`mlflow.projects.run` warm, sqlite{', project in a git work tree' if project is in_git else ''}"
        yield Result(
            name,
            what,
            "MLflow's local backend, which stores neither log nor snapshot",
            Goal(1),
            wall,
            cpu,
            partial(str, why),
        )


def _why_warm(bench: Bench, local: Callable[[], Cost], store: str) -> str:
    peer = seconds(local, 5)
    bare = seconds(lambda: bench.run([sys.executable, "-I", "-S", "-c", ""]), 5)
    plugins = seconds(entry_points, 5)
    client = MlflowClient(tracking_uri=store)

    def begin_and_end() -> None:
        run_id = client.create_run("0").info.run_id
        client.get_run(run_id)
        client._tracking_client.store.update_run_info(run_id, RunStatus.FINISHED, 1, run_name=None)

    stored = seconds(begin_and_end, 5)
    return (
        f"Of the peer's whole time, a bare Python process, which a supervisor is at least, takes {bare / peer:.2f}; "
        f"MLflow's own look-up of a plugin (it scans every installed distribution at each call) {plugins / peer:.2f}; "
        f"the three calls that begin and end a run in the store {stored / peer:.2f}."
    )


def cold_own_run(bench: Bench) -> Iterator[Result]:
    """P3: our own command line against MLflow's, both with a tracking server."""
    project, server = str(bench.project("own")), bench.server

    def ours() -> Cost:
        return bench.cost(["mlflow-azure", "run", project, "--env-manager", "local"], MLFLOW_TRACKING_URI=server)

    def theirs() -> Cost:
        return bench.cost(["mlflow", "run", project, "--env-manager", "local"], MLFLOW_TRACKING_URI=server)

    ((wall, cpu),) = by_turns(ours, theirs)
    yield Result(
        "P3",
        "`mlflow-azure run`, tracking server",
        "`mlflow run`",
        Goal(0.5),
        wall,
        cpu,
        lambda: _of_import(bench, theirs),
    )


def _of_import(bench: Bench, theirs: Callable[[], Cost]) -> str:
    share = seconds(lambda: bench.run([sys.executable, "-W", "ignore", "-c", "import mlflow"])) / seconds(theirs)
    return f"`import mlflow` alone takes {share:.2f} of the peer's time."


def rest_calls(bench: Bench) -> Iterator[Result]:
    """P5: the requests that reach the tracking server in one run of ``mlflow-azure run``."""
    plain = bench.project("counted")
    declared = "    parameters: {a: {type: float, default: 1}}\n    command: 'true {a}'\n"
    with_parameter = bench.project("counted with a parameter", f"name: counted\nentry_points:\n  main:\n{declared}")
    for name, project in (("P5", plain), ("P5 with parameters", with_parameter)):
        with counting_proxy(bench.server) as (address, seen):
            bench.run(["mlflow-azure", "run", str(project), "--env-manager", "local"], MLFLOW_TRACKING_URI=address)
        calls = [call for call in seen if "/mlflow-artifacts/" not in call]
        what = f"REST calls of a run{name.removeprefix('P5')}, artifact uploads apart"
        yield Result(name, what, "", Goal(4, "calls"), [len(calls)], (), partial(_named, calls))


def _named(calls: list[str]) -> str:
    return f"They are: {', '.join(f'`{call}`' for call in calls)}."


def entry_point(bench: Bench) -> Iterator[Result]:
    """P18: what MLflow waits for when it loads our backend, and the first run beyond that; MLflow is loaded by then."""
    code = (
        "import time\nstart = time.perf_counter()\nimport mlflow.projects\nloaded = time.perf_counter()\n"
        "from importlib.metadata import EntryPoint\n"
        "point = EntryPoint('azureml', 'mlflow_azure_backend.backend:AzureMLBackend', 'mlflow.project_backend')\n"
        "begin = time.perf_counter()\npoint.load()\nend = time.perf_counter()\n"
        "import mlflow_azure_backend.launching\nfirst_run = time.perf_counter()\n"
        "print((end - begin) * 1000, (first_run - end) / (loaded - start))\n"
    )
    answers = [bench.run([sys.executable, "-W", "ignore", "-c", code]).split() for _ in range(PAIRS + 1)][1:]
    share = statistics.median(float(share) for _, share in answers)
    what = f"loading the entry point (what a run needs is loaded by the first: {share:.1%} of `import mlflow.projects`)"
    yield Result("P18", what, "", Goal(30, "ms"), [float(load) for load, _ in answers])


@contextlib.contextmanager
def worker(bench: Bench, project: Path, store: str) -> Iterator[Callable[[str, str], Callable[[], Cost]]]:
    """A process of its own that runs a project with the backend and the environment manager that it is told."""
    with (
        (bench.folder / "warm_runs.err").open("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.warm_runs", str(project)],
            env={**bench.environment, "MLFLOW_TRACKING_URI": store},
            cwd=bench.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        asking, answers = process.stdin, process.stdout
        assert asking is not None
        assert answers is not None

        def costs(backend: str, env_manager: str) -> Callable[[], Cost]:
            def cost() -> Cost:
                print(backend, env_manager, file=asking, flush=True)
                answer = answers.readline()
                if not answer:
                    raise RuntimeError(Path(errors.name).read_text()[-4000:])
                wall, cpu = answer.split()
                return Cost(float(wall), float(cpu))

            return cost

        yield costs
        asking.close()


@contextlib.contextmanager
def counting_proxy(target: str) -> Iterator[tuple[str, list[str]]]:
    """An HTTP proxy in front of ``target``: its address, and the requests that it has passed on."""
    seen: list[str] = []
    upstream = urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            seen.append(f"{self.command} {urlsplit(self.path).path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = http.client.HTTPConnection(str(upstream.hostname), upstream.port)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - the standard library's names

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CASES = {"P1": cold_mlflow_run, "P2": warm_run, "P3": cold_own_run, "P5": rest_calls, "P18": entry_point}
