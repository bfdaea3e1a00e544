"""Causes that cannot be made to fail here for real, told by their recorded words; and tracebacks of every kind."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_azure_backend.diagnosis import Diagnosis, Evidence, diagnose, locate

EvidenceOf = Callable[..., Evidence]
TracebackOf = Callable[..., bytes]

MLFLOW = "mlflow.exceptions.MlflowException: "
REST = "mlflow/utils/rest_utils.py"
# What cannot be made to fail here for real, as its makers print it:
# (exception, statement, library file, further evidence, cause, part of the cause, part of the fix)
EXCEPTIONS: list[tuple[str, str, str | None, dict[str, Any], str, str, str | None]] = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15 GiB",
        "train(batch_size)",
        "torch/nn/modules/module.py",
        {"parameters": {"batch_size": "64"}},
        "gpu-out-of-memory",
        "asks for 2.00 GiB more",
        "-P batch_size=32",
    ),
    (
        "AssertionError: Torch not compiled with CUDA enabled",
        "model.to(device)",
        "torch/cuda/__init__.py",
        {"parameters": {"device": "cuda:0"}},
        "no-gpu",
        "built without CUDA",
        "-P device=cpu",
    ),
    (
        "RuntimeError: DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's"
        " workers are out of shared memory.",
        "for batch in loader:",
        "torch/utils/data/dataloader.py",
        {},
        "shared-memory-full",
        "/dev/shm",
        '"shm_size"',
    ),
    (
        "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
        "import cv2",
        "cv2/__init__.py",
        {},
        "missing-shared-library",
        "libGL.so.1",
        "apt-get install -y libgl1",
    ),
    (
        "ImportError: /lib/libc.so.6: version `GLIBC_2.32' not found (required by /env/x.so)",
        "import x",
        None,
        {},
        "binary-mismatch",
        "GLIBC_2.32",
        None,
    ),
    (
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88",
        "import pandas",
        "pandas/__init__.py",
        {"environment_file": "conda.yaml"},
        "binary-mismatch",
        "NumPy",
        "- numpy<2",
    ),
    (
        f"{MLFLOW}API request to endpoint /api/2.0/mlflow/runs/create failed with error code 401 != 200."
        " Response body: ''",
        "mlflow.log_metric('a', 1)",
        REST,
        {"tracking_uri": "https://track.example"},
        "tracking-refused",
        "https://track.example answers 401",
        "env:MLFLOW_TRACKING_PASSWORD",
    ),
    (
        f"{MLFLOW}API request to https://track.example/api/2.0/mlflow/runs/create failed with exception"
        " HTTPSConnectionPool(host='track.example', port=443): Max retries exceeded (Caused by NameResolutionError("
        "\"Failed to resolve 'track.example' ([Errno -2] Name or service not known)\"))",
        "mlflow.log_metric('a', 1)",
        REST,
        {"tracking_uri": "https://track.example"},
        "tracking-unreachable",
        "its name cannot be resolved",
        "curl -sSf https://track.example/health",
    ),
    (
        f"{MLFLOW}Detected out-of-date database schema (found version bl0rg, but expected dc11669786a5). Take a backup",
        "mlflow.log_metric('a', 1)",
        "mlflow/store/db/utils.py",
        {"tracking_uri": "sqlite:////x.db"},
        "tracking-schema",
        "another version of MLflow",
        "mlflow db upgrade sqlite:////x.db",
    ),
    (
        "mlflow.tracking.registry.UnsupportedModelRegistryStoreURIException:  Model registry functionality is"
        " unavailable; got unsupported URI 'azureml://x/y' for model registry data storage. Supported URI"
        " schemes are: ['']",
        "mlflow.log_metric('a', 1)",
        "mlflow/tracking/registry.py",
        {"environment_file": "requirements.txt"},
        "tracking-plugin-missing",
        "requirements.txt has no plugin for azureml://",
        "add to requirements.txt:  mlflow-azure-backend",
    ),
    (
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='data.example', port=443): Max retries exceeded"
        " with url: /x (Caused by NameResolutionError(\"Failed to resolve 'data.example' ([Errno -2] Name or service"
        ' not known)"))',
        "requests.get(url)",
        "requests/adapters.py",
        {},
        "unreachable-host",
        "data.example cannot be reached from this machine: its name cannot be resolved",
        "curl -sSI https://data.example",
    ),
    (
        "requests.exceptions.SSLError: HTTPSConnectionPool(host='data.example', port=443): Max retries exceeded with"
        " url: / (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify"
        " failed')))",
        "requests.get(url)",
        "requests/adapters.py",
        {},
        "untrusted-certificate",
        "data.example",
        "REQUESTS_CA_BUNDLE",
    ),
    (
        "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
        "mlflow.log_artifact('x')",
        "botocore/auth.py",
        {},
        "missing-credentials",
        "AWS",
        "env:AWS_ACCESS_KEY_ID",
    ),
    (
        "azure.core.exceptions.ClientAuthenticationError: DefaultAzureCredential failed to retrieve a token from the"
        " included credentials.",
        "client.jobs.get('x')",
        "azure/identity/_credentials/chained.py",
        {},
        "missing-credentials",
        "Azure",
        "az login",
    ),
    (
        "AttributeError: 'DataFrame' object has no attribute 'append'",
        "rows = rows.append(row)",
        "pandas/core/generic.py",
        {"environment_file": "python_env.yaml"},
        "removed-from-package",
        "pandas.concat",
        "- pandas<2",
    ),
    (
        "AttributeError: 'Series' object has no attribute 'iteritems'",
        "for a, b in rows.iteritems():",
        "pandas/core/generic.py",
        {},
        "removed-from-package",
        "items",
        "for a, b in rows.items():",
    ),
    (
        "AttributeError: module 'numpy' has no attribute 'int'.",
        "import skopt",
        "numpy/__init__.py",
        {},
        "removed-from-package",
        "np.int",
        "numpy<1.24",
    ),
    (
        "ModuleNotFoundError: No module named 'sklearn.cross_validation'",
        "from sklearn.cross_validation import KFold",
        None,
        {},
        "removed-from-package",
        "sklearn.model_selection",
        "from sklearn.model_selection import KFold",
    ),
    (
        "ImportError: cannot import name 'joblib' from 'sklearn.externals' (/env/x/__init__.py)",
        "from sklearn.externals import joblib",
        None,
        {},
        "removed-from-package",
        "joblib",
        "import joblib",
    ),
    (
        "TypeError: OneHotEncoder.__init__() got an unexpected keyword argument 'sparse'",
        "encoder = OneHotEncoder(sparse=False)",
        None,
        {},
        "removed-from-package",
        "sparse_output",
        "OneHotEncoder(sparse_output=False)",
    ),
    (
        "ModuleNotFoundError: No module named 'distutils'",
        "import distutils",
        None,
        {"python_version": "3.12.1"},
        "python-version",
        "3.11 was the last",
        "setuptools",
    ),
    (
        "ModuleNotFoundError: No module named 'tomllib'",
        "import tomllib",
        None,
        {"python_version": "3.10.4", "environment_file": "python_env.yaml"},
        "python-version",
        "came with Python 3.11, and this is 3.10.4",
        'python: "3.11"',
    ),
    (
        "ImportError: cannot import name 'StrEnum' from 'enum' (/usr/lib/python3.10/enum.py)",
        "from enum import StrEnum",
        None,
        {"python_version": "3.10"},
        "python-version",
        "enum.StrEnum came with Python 3.11",
        "3.11",
    ),
    (
        "ModuleNotFoundError: No module named '_tkinter'",
        "import tkinter",
        None,
        {},
        "missing-module",
        "built without its own module _tkinter",
        "apt-get install -y python3-tk",
    ),
    (
        "ModuleNotFoundError: No module named 'sklearn'",
        "import sklearn",
        None,
        {"environment_file": "conda.yaml", "packages": frozenset({"numpy"})},
        "missing-module",
        "package scikit-learn",
        "- scikit-learn",
    ),
    (
        "ModuleNotFoundError: No module named 'sklearn'",
        "import sklearn",
        None,
        {"environment_file": "conda.yaml", "packages": frozenset({"Scikit_Learn"})},
        "missing-module",
        "although the environment of conda.yaml has scikit-learn",
        None,
    ),
    (
        "ModuleNotFoundError: No module named 'our_private_code'",
        "import our_private_code",
        None,
        {},
        "missing-module",
        "no module our_private_code",
        "add the package that provides our_private_code",
    ),
    (
        "ModuleNotFoundError: No module named 'cv2'",
        "import cv2",
        None,
        {},
        "missing-module",
        "package opencv-python-headless",
        "python -m pip install opencv-python-headless",
    ),
    (
        "OSError: [Errno 30] Read-only file system: '/data/x'",
        "open('/data/x', 'w')",
        None,
        {},
        "permission-denied",
        "read-only",
        "open('outputs/x', 'w')",
    ),
    (
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x8b in position 1: invalid start byte",
        "pd.read_csv(name)",
        None,
        {},
        "wrong-encoding",
        "gzip",
        "gzip.open",
    ),
    (
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "table = pd.read_csv(name)",
        None,
        {},
        "wrong-encoding",
        "not utf-8",
        'table = pd.read_csv(name, encoding="utf-16")',
    ),
    (
        "FileNotFoundError: x.csv not found.",
        "np.loadtxt('x.csv')",
        "numpy/lib/npyio.py",
        {},
        "missing-file",
        "x.csv does not exist",
        None,
    ),
    (
        "FileNotFoundError: [Errno 2] Unable to synchronously open file (unable to open file: name = 'x.h5', errno = 2,"
        " error message = 'No such file or directory', flags = 0)",
        "h5py.File('x.h5')",
        "h5py/_hl/files.py",
        {},
        "missing-file",
        "x.h5 does not exist",
        None,
    ),
    (
        "OSError: Cannot save file into a non-existent directory: 'results'",
        "table.to_csv('results/x.csv')",
        "pandas/io/common.py",
        {"working_folder_is_snapshot": True},
        "missing-folder",
        "the folder results does not exist",
        "os.makedirs('results', exist_ok=True)",
    ),
    (
        "FileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'",
        "open('data/x.csv')",
        None,
        {"left_out": {"data": ".gitignore:7"}.get},
        "left-out-file",
        "data exists here but was left out by .gitignore:7, and data/x.csv would be in it",
        '"include": ["data"]',
    ),
    (
        "concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated abruptly while the"
        " future was running or pending.",
        "fit(rows)",
        None,
        {"oom": True, "max_rss": 2_100_000_000, "parameters": {"rows": "100"}},
        "out-of-memory",
        "the most that was seen in one process is 2.1 GB",
        "-P rows=50",
    ),
    (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address."
        " port: 29500, useIpv6: 0, code: -98, name: EADDRINUSE, message: address already in use",
        "init_process_group()",
        None,
        {},
        "port-in-use",
        "is taken by another program",
        "ss -ltnp",
    ),
]


@pytest.mark.parametrize("case", EXCEPTIONS, ids=lambda case: case[0][:60])
def test_causes_that_other_machines_have(
    case: tuple[str, str, str | None, dict[str, Any], str, str, str | None],
    tmp_path: Path,
    traceback_of: TracebackOf,
    evidence: EvidenceOf,
) -> None:
    error, source, library, known, cause_id, cause, fix = case
    log = traceback_of(tmp_path, error, source, library)
    said = diagnose(evidence(log, tmp_path, **known))
    assert (said.cause_id, said.at) == (cause_id, f"train.py:1  {source}")
    assert cause in said.cause
    assert (said.fix is None) if fix is None else fix in (said.fix or "")


# Ends without a traceback: (log, further evidence, cause, part of the cause, part of the fix)
LAST_WORDS: list[tuple[str, dict[str, Any], str, str, str | None]] = [
    ("", {"reason": "timeout", "timeout": 3600.0}, "timeout", "3600 s", '"timeout": "7200s"'),
    ("", {"reason": "lost", "exit_code": None}, "ended-from-outside", "supervisor", None),
    ("", {"reason": "client_died", "exit_code": None}, "ended-from-outside", "client", '"detach": true'),
    (
        "",
        {"reason": "start_failed", "exit_code": None, "message": "bash: not found"},
        "start-failed",
        "the command never started: bash: not found",
        None,
    ),
    (
        "",
        {"signal": 9, "exit_code": 137, "reason": "signal", "oom": True, "parameters": {"batch-size": "8"}},
        "out-of-memory",
        "the kernel ended it",
        "-P batch-size=4",
    ),
    ("", {"signal": 9, "exit_code": 137, "reason": "signal", "oom": False}, "killed-by-signal", "SIGKILL", "dmesg"),
    (
        "bash: line 1: 14075 Killed                  python train.py",
        {"exit_code": 137},
        "killed-by-signal",
        "killed by SIGKILL",
        "dmesg",
    ),
    (
        "run.sh: line 3:    12 Segmentation fault      (core dumped) python train.py",
        {"exit_code": 139},
        "segmentation-fault",
        "segmentation fault",
        "PYTHONFAULTHANDLER",
    ),
    (
        "sh: 1: Rscript: not found",
        {"exit_code": 127},
        "missing-executable",
        "the command Rscript",
        "apt-get install -y r-base-core",
    ),
    (
        "bash: Zeile 1: foo: Kommando nicht gefunden.",
        {"exit_code": 127},
        "missing-executable",
        "the command foo is not on this machine",
        None,
    ),
    (
        "./run.sh: line 3: ffmpeg: command not found",
        {"exit_code": 127},
        "missing-executable",
        "the command ffmpeg",
        "apt-get install -y ffmpeg",
    ),
    ("env: \u2018julia\u2019: No such file or directory", {"exit_code": 127}, "missing-executable", "julia", None),
    ("bash: line 1: bin/run: No such file or directory", {"exit_code": 127}, "missing-executable", "bin/run", None),
    (
        "tool: error while loading shared libraries: libgomp.so.1: cannot open shared object file: No such file",
        {"exit_code": 127},
        "missing-shared-library",
        "libgomp.so.1",
        "apt-get install -y libgomp1",
    ),
    ("/usr/bin/python3: No module named xgboost", {}, "missing-module", "xgboost", "pip install xgboost"),
    (
        "ERROR: Package 'x' requires a different Python: 3.9.1 not in '>=3.10'",
        {},
        "python-version",
        "needs Python >=3.10, and this is 3.9.1",
        None,
    ),
    (
        "Error in library(mgcv) : there is no package called \u2018mgcv\u2019\nExecution halted",
        {},
        "missing-r-package",
        "R has no package mgcv",
        'Rscript -e \'install.packages("mgcv"',
    ),
    (
        "Error: No such option: --lr Did you mean --rate?\n",
        {"exit_code": 2, "parameters": {"lr": "1"}},
        "unknown-option",
        "--lr",
        "leave the parameter lr out",
    ),
    (
        "x.py: error: argument -m/--mode: invalid choice: 'fsat' (choose from fast, slow)",
        {"exit_code": 2, "parameters": {"mode": "fsat"}},
        "invalid-choice",
        "must be fast or slow",
        "-P mode=fast",
    ),
    (
        "Error: Invalid value for '--alpha': 'abc' is not a valid float.",
        {"exit_code": 2, "parameters": {"alpha": "abc"}},
        "wrong-parameter-type",
        "'abc', which is not a float",
        "-P alpha=<float>",
    ),
    (
        "x.py: error: argument --n: invalid int value: '1,000'",
        {"exit_code": 2, "parameters": {"rows": "1,000"}},
        "wrong-parameter-type",
        "the parameter rows",
        "-P rows=1000",
    ),
]


@pytest.mark.parametrize("case", LAST_WORDS, ids=lambda case: f"{case[2]} {case[0][:40]}")
def test_causes_that_need_no_traceback(
    case: tuple[str, dict[str, Any], str, str, str | None], tmp_path: Path, evidence: EvidenceOf
) -> None:
    log, known, cause_id, cause, fix = case
    said = diagnose(evidence(log.encode(), tmp_path, **known))
    assert (said.cause_id, said.at) == (cause_id, None)
    assert cause in said.cause
    assert fix is None or fix in (said.fix or "")


# Words that tempt, and are not enough: (log, further evidence)
TEMPTING: list[tuple[str, dict[str, Any]]] = [
    ("bash: line 1: ./train: cannot execute binary file: Exec format error", {"exit_code": 126}),
    ("bash: line 1: /opt/train: cannot execute: required file not found", {"exit_code": 127}),
    ("bash: line 1: cd: data: No such file or directory", {"exit_code": 1}),
    ("Segmentation fault", {"exit_code": 1}),
    ("Killed", {"exit_code": 9}),
    ("x.py: error: argument --alpha: invalid positive_number value: 'abc'", {"exit_code": 2}),
    ("x.py: error: argument --range: expected one argument", {"exit_code": 2, "parameters": {"range": "1"}}),
    ("out of memory", {"oom": True}),
    ("Execution halted", {}),
]


@pytest.mark.parametrize("case", TEMPTING, ids=lambda case: case[0][:50])
def test_tempting_words_are_not_enough(case: tuple[str, dict[str, Any]], evidence: EvidenceOf, tmp_path: Path) -> None:
    log, known = case
    (tmp_path / "train").write_bytes(b"\x7fELF")
    (tmp_path / "train").chmod(0o755)
    assert diagnose(evidence(log.encode(), tmp_path, **known)).cause_id == "unknown"


@pytest.mark.parametrize(
    ("error", "source", "library"),
    [
        ("OSError: [Errno 28] inotify watch limit reached", "observer.start()", "watchdog/observers/inotify_c.py"),
        ("KeyError: 'row'", "table.loc['row']", "pandas/core/indexes/range.py"),
        ("ValueError: could not convert string to float: 'abc'", "model.fit(rows)", "sklearn/utils/validation.py"),
        ("AttributeError: module 'numpy' has no attribute 'never_was'", "np.never_was", "numpy/__init__.py"),
        ("AttributeError: 'DataFrame' object has no attribute 'append'", "rows.append(row)", "ours/frame.py"),
        ("torch.cuda.CudaError: out of memory", "train()", "torch/cuda/__init__.py"),
        ("urllib.error.HTTPError: HTTP Error 404: Not Found", "urlopen(url)", None),
        ("mlflow.exceptions.MlflowException: Run 'x' not found", "mlflow.log_metric('a', 1)", "mlflow/x.py"),
        ("git.exc.InvalidGitRepositoryError: /x", "git.Repo('.')", "git/repo/base.py"),
        ("concurrent.futures.process.BrokenProcessPool: A process was terminated abruptly", "fit()", None),
    ],
)
def test_exceptions_that_resemble_a_cause(
    error: str, source: str, library: str | None, traceback_of: TracebackOf, evidence: EvidenceOf, tmp_path: Path
) -> None:
    log = traceback_of(tmp_path, error, source, library)
    said = diagnose(evidence(log, tmp_path, parameters={"alpha": "abc"}))
    assert (said.cause_id, said.at) == ("unknown", f"train.py:1  {source}")


# What other versions of Python say of a line that they do not parse: (version, line, its words, cause, part of the fix)
SYNTAX = [
    ("3.8.18", "match x:", "invalid syntax", "python-version", "3.10"),
    ("3.10.13", "except* ValueError:", "invalid syntax", "python-version", "3.11"),
    ("3.11.7", "type X = int", "invalid syntax", "python-version", "3.12"),
    ("3.11.7", "def f[T](x: T) -> T: return x", "expected '('", "python-version", "3.12"),
    ("3.10.13", 'print(f"{x["a"]}")', "f-string: unmatched '['", "python-version", "3.12"),
    ("3.13.0", 'x = t"hello"', "invalid syntax", "python-version", "3.14"),
    ("3.13.0", "match x:", "invalid syntax", "syntax-error", None),
    ("3.13.0", "x = (1,", "'(' was never closed", "syntax-error", None),
]


@pytest.mark.parametrize(("version", "line", "words", "cause", "fix"), SYNTAX)
def test_syntax_of_a_newer_python(
    version: str, line: str, words: str, cause: str, fix: str | None, tmp_path: Path, evidence: EvidenceOf
) -> None:
    log = f'  File "{tmp_path}/train.py", line 3\n    {line}\n    ^^^\nSyntaxError: {words}\n'.encode()
    said = diagnose(evidence(log, tmp_path, python_version=version))
    assert (said.cause_id, said.at) == (cause, f"train.py:3  {line}")
    assert (said.fix is None) if fix is None else fix in (said.fix or "")


TRACEBACKS = {
    # name: (log with {folder}, cause, where)
    "colours of 3.13": (
        "Traceback (most recent call last):\n"
        '  File \x1b[35m"{folder}/train.py"\x1b[0m, line \x1b[35m9\x1b[0m, in \x1b[35m<module>\x1b[0m\n'
        "    \x1b[31mopen\x1b[0m\x1b[1;31m(\x1b[0mname\x1b[1;31m)\x1b[0m\n    \x1b[31m~~~~\x1b[0m\x1b[1;31m^^\x1b[0m\n"
        "\x1b[1;35mFileNotFoundError\x1b[0m: \x1b[35m[Errno 2] No such file or directory: 'x.csv'\x1b[0m\n",
        "missing-file",
        "train.py:9  open(name)",
    ),
    "a group of one": (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "{folder}/train.py", line 6, in <module>\n  |     asyncio.run(main())\n'
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n"
        "    |   File \"{folder}/train.py\", line 2, in bad\n    |     open('x.csv')\n    |     ^^^^^^^^^^^^^\n"
        "    | FileNotFoundError: [Errno 2] No such file or directory: 'x.csv'\n"
        "    +------------------------------------\n",
        "missing-file",
        "train.py:2  open('x.csv')",
    ),
    "a group of two": (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "{folder}/train.py", line 6, in <module>\n  |     asyncio.run(main())\n'
        "  | ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n"
        '    |   File "{folder}/train.py", line 2, in bad\n    |     import nothere\n'
        "    | ModuleNotFoundError: No module named 'nothere'\n"
        "    +---------------- 2 ----------------\n    | Traceback (most recent call last):\n"
        "    |   File \"{folder}/train.py\", line 3, in bad\n    |     open('x.csv')\n"
        "    | FileNotFoundError: [Errno 2] No such file or directory: 'x.csv'\n"
        "    +------------------------------------\n",
        "unknown",
        "train.py:6  asyncio.run(main())",
    ),
    "a rank": (
        '[rank0]: Traceback (most recent call last):\n[rank0]:   File "{folder}/train.py", line 2, in <module>\n'
        "[rank0]:     import nothere\n[rank0]: ModuleNotFoundError: No module named 'nothere'\n"
        "[rank0]:[W1122 ProcessGroupNCCL.cpp:1250] Warning: process group has NOT been destroyed\n",
        "missing-module",
        "train.py:2  import nothere",
    ),
    "a loader's worker": (
        'Traceback (most recent call last):\n  File "{folder}/train.py", line 9, in <module>\n'
        "    for batch in loader:\n"
        "FileNotFoundError: Caught FileNotFoundError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "/env/lib/python3.11/site-packages/torch/utils/data/_utils/worker.py", line 9, in _worker_loop\n'
        "    data = fetcher.fetch(index)\n"
        '  File "{folder}/rows.py", line 4, in __getitem__\n    open(self.names[index])\n'
        "FileNotFoundError: [Errno 2] No such file or directory: 'x.csv'\n\n",
        "missing-file",
        "rows.py:4  open(self.names[index])",
    ),
    "beginning cut off": (
        ' line 1, in f\n    f()\n  File "{folder}/train.py", line 2, in f\n    import nothere\n'
        "ModuleNotFoundError: No module named 'nothere'\n",
        "missing-module",
        "train.py:2  import nothere",
    ),
    "an environment in the project": (
        'Traceback (most recent call last):\n  File "{folder}/train.py", line 9, in <module>\n    import pandas\n'
        '  File "{folder}/.venv/lib/python3.11/site-packages/pandas/__init__.py", line 2, in <module>\n'
        "    import numpy\n"
        "ModuleNotFoundError: No module named 'numpy'\n",
        "missing-module",
        "train.py:9  import pandas",
    ),
    "no line to show": (
        'Traceback (most recent call last):\n  File "{folder}/train.py", line 9, in <module>\n'
        "ModuleNotFoundError: No module named 'nothere'\n",
        "missing-module",
        "train.py:9",
    ),
    "Windows line ends": (
        'Traceback (most recent call last):\r\n  File "{folder}/train.py", line 9, in <module>\r\n'
        "    import nothere\r\n"
        "ModuleNotFoundError: No module named 'nothere'\r\n",
        "missing-module",
        "train.py:9  import nothere",
    ),
    "nobody's file": (
        'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\n'
        "ModuleNotFoundError: No module named 'nothere'\n",
        "missing-module",
        None,
    ),
    "a stack that is no exception": (
        'Stack (most recent call last):\n  File "{folder}/train.py", line 9, in <module>\n    log.info("x")\nDone\n',
        "unknown",
        None,
    ),
}


@pytest.mark.parametrize("name", TRACEBACKS)
def test_tracebacks_of_every_kind_are_read(name: str, tmp_path: Path, evidence: EvidenceOf) -> None:
    text, cause, at = TRACEBACKS[name]
    log = text.replace("{folder}", str(tmp_path)).encode()
    said = diagnose(evidence(b"epoch 1\n" * (0 if name == "beginning cut off" else 3) + log, tmp_path))
    assert (said.cause_id, said.at) == (cause, at)
    assert locate(log, tmp_path) == at


def test_credentials_and_control_characters_are_not_repeated(
    tmp_path: Path, traceback_of: TracebackOf, evidence: EvidenceOf
) -> None:
    error = "FileNotFoundError: [Errno 2] No such file or directory: 'https://me:canary@host/x?sig=canary'"
    said = diagnose(evidence(traceback_of(tmp_path, error, "get('https://me:canary@host/x')"), tmp_path))
    assert said.cause_id == "missing-file"
    assert "canary" not in repr(said)
    (tmp_path / "a\tb.py").write_text("#!/bin/sh\r\n")
    said = diagnose(evidence(b"bash: line 1: x\x07y: command not found\n", tmp_path, exit_code=127))
    assert said == Diagnosis("missing-executable", "the command x y is not on this machine", None, None)


def test_what_is_pasted_into_a_shell_is_quoted(tmp_path: Path, traceback_of: TracebackOf, evidence: EvidenceOf) -> None:
    error = """FileNotFoundError: [Errno 2] No such file or directory: "results'; rm -rf ~; '/x.txt\""""
    said = diagnose(evidence(traceback_of(tmp_path, error, "open(name, 'w')"), tmp_path))
    assert said.fix is not None
    assert shlex.split(said.fix) == ["mkdir", "-p", "results'; rm -rf ~; '"]


def test_nothing_outside_the_project_is_looked_at(
    tmp_path: Path, traceback_of: TracebackOf, evidence: EvidenceOf
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "train.csv").write_text("secret\n")
    error = "FileNotFoundError: [Errno 2] No such file or directory: '../trian.csv'"
    said = diagnose(evidence(traceback_of(project, error, "open('../trian.csv')"), project))
    assert said == Diagnosis(
        "missing-file", "../trian.csv does not exist in the working folder", "train.py:1  open('../trian.csv')", None
    )


def test_an_unknown_working_folder_is_no_obstacle(traceback_of: TracebackOf, evidence: EvidenceOf) -> None:
    log = traceback_of(Path("/code"), "ModuleNotFoundError: No module named 'nothere'", "import nothere")
    said = diagnose(evidence(log, Path("/")))
    assert (said.cause_id, said.at) == ("missing-module", None)


def test_a_run_that_succeeded_has_no_cause(tmp_path: Path, evidence: EvidenceOf) -> None:
    log = b'Traceback (most recent call last):\n  File "train.py", line 1, in <module>\nMemoryError\n'
    said = diagnose(evidence(log, tmp_path, exit_code=0, reason="succeeded"))
    assert (said.cause_id, said.at) == ("unknown", None)
