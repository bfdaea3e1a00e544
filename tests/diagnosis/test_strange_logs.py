"""No log is too strange, and none takes long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_azure_backend.diagnosis import Evidence, diagnose

EvidenceOf = Callable[..., Evidence]
TracebackOf = Callable[..., bytes]
TAIL = 64 * 1024

PIECES = st.sampled_from(
    [
        "Traceback (most recent call last):",
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "/p/train.py", line 3, in f',
        '  File "/p/train.py", line 3, in f',
        '  File "/p/train.py", line 3',
        "    open(name)",
        "    ^^^^",
        "    | ValueError: (2 sub-exceptions)",
        "ModuleNotFoundError: No module named 'x'",
        "FileNotFoundError: [Errno 2] No such file or directory: '\0'",
        "SyntaxError: invalid syntax",
        "KeyError: 'a'",
        "",
        '"""',
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
        "Exception ignored in: <f>",
        "bash: line 1: 12 Killed  x",
        "train.py: error: argument --x: invalid int value: ''",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    log=st.one_of(
        st.binary(max_size=2000),
        st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=30).map(lambda lines: "\n".join(lines).encode()),
    ),
    exit_code=st.sampled_from([None, 1, 2, 126, 127, 137, 255]),
    signal=st.sampled_from([None, 9, 11, 64, 100]),
    parameters=st.dictionaries(st.text(max_size=5), st.text(max_size=10), max_size=3),
)
def test_no_log_is_too_strange(
    log: bytes, exit_code: int | None, signal: int | None, parameters: dict[str, str], evidence: EvidenceOf
) -> None:
    said = diagnose(evidence(log, Path("/p"), exit_code=exit_code, signal=signal, parameters=parameters, oom=True))
    assert said.cause
    assert "\n" not in said.cause


@pytest.mark.parametrize(
    "unit",
    [
        b"| (1 ",
        b'  File "x", line 1',
        b"No module named '",
        b"resource_tracker ",
        b"argument : invalid choice: '' (choose from ",
        b"\x1b[",
        b"\r",
        b"Traceback (most recent call last):\n",
        b'  File "/p/t.py", line 1, in f\n    x\n',
        b"sh: 1: ",
        b"a: error: argument ",
        b"' codec can't decode byte ",
    ],
    ids=repr,
)
@pytest.mark.timeout(5)
@pytest.mark.parametrize("exit_code", [1, 2, 127])
def test_no_log_takes_long(
    unit: bytes, exit_code: int, tmp_path: Path, traceback_of: TracebackOf, evidence: EvidenceOf
) -> None:
    """A pattern that backtracks without end would run into the time-out."""
    log = (unit * TAIL)[-TAIL:]
    for text in (log, log + b"\n" + traceback_of(tmp_path, "ImportError: " + log.decode("utf-8", "replace"))):
        diagnose(evidence(text, tmp_path, exit_code=exit_code))
