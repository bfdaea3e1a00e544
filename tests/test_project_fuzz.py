"""Whatever stands in an MLproject, whatever a parameter's value: an answer or a ``ProjectError``, never a surprise."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Final

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.project import (
    Argument,
    EntryPoint,
    Parameter,
    ParameterType,
    ProjectSpec,
    bind_parameters,
    find_entry_point,
    load_project,
    render_command,
)

EXAMPLES: Final = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SOUND: Final = b"""name: x
docker_env: {image: i, volumes: ["/a:/b"], environment: [[A, b], C]}
entry_points:
  main: &m
    parameters: {a: float, b-c: {type: path, default: [1, "x y"]}, d: uri}
    command: "python {a} '{b-c}' \\"{d}\\" $(echo {a}) `x` {{y}}"
  other: *m
"""


def check(data: bytes) -> None:
    """Go the whole way with an MLproject."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "MLproject").write_bytes(data)
        try:
            spec = load_project(folder)
        except ProjectError as error:
            assert "\n" not in str(error)
            return
        assert isinstance(spec, ProjectSpec)
        for entry_point in spec.entry_points:
            try:
                point = find_entry_point(spec, entry_point.name)
                given = {one.name: "file:/" if one.type is not ParameterType.FLOAT else 1 for one in point.parameters}
                render_command(point, bind_parameters(point, given | {"extra": "'"}, client_folder=folder))
            except ProjectError as error:
                assert "\n" not in str(error)


@EXAMPLES
@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf")
def test_any_bytes(data: bytes) -> None:
    check(data)


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SOUND)), st.integers(0, 12), st.sampled_from(list("[]{}:,&*!|>'\"%@`#-? \n\t\\0x<~"))
        )
    )
)
def test_damaged_project(cuts: list[tuple[int, int, str]]) -> None:
    data = SOUND
    for at, length, text in cuts:
        data = data[:at] + text.encode() + data[at + length :]
    check(data)


TOP_KEYS: Final = ["name", "entry_points", "conda_env", "python_env", "docker_env", "databricks_spark_job"]
INNER_KEYS: Final = ["parameters", "command", "type", "default", "image", "volumes", "environment", "<<", "a"]
KEYS: Final = st.sampled_from([*TOP_KEYS, *INNER_KEYS]) | st.text(max_size=3) | st.none() | st.integers()
VALUES: Final = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.dates(),
        st.sampled_from(["x {a}", "{a", "${a}", "'{a}", "{a:>3}", "float", "path", "uri", "a\0b"]),
        st.text(max_size=5),
        st.binary(max_size=3),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@EXAMPLES
@given(st.dictionaries(KEYS, VALUES, max_size=4), VALUES, VALUES)
def test_any_shape(top: dict[object, object], parameters: object, command: object) -> None:
    check(yaml.safe_dump(top).encode())
    check(yaml.safe_dump({"entry_points": {"main": {"parameters": parameters, "command": command}}}).encode())


WORD: Final = st.sampled_from(
    [
        "{x}",
        "{x}",
        "{x}",
        "a",
        " ",
        "it",
        "#",
        " # ",
        "=",
        "case",
        "$N",
        "$#",
        "{{",
        "}}",
        "<<<",
        r"\ ",
        r"\'",
        r"\"",
        r"\$",
    ]
)
IN_SINGLE: Final = st.sampled_from(["{x}", "{x}", '"', "`", "$(", "\\", " # ", "<<E", ")", "}}"])


AROUND: Final = [
    ('"', '"'),
    ("$(echo ", ")"),
    ('"$(echo ', ')"'),
    ("`echo ", "`"),
    ('"${{N:-', '}}"'),
    ("$(( 1 + ", " ))"),
    ("; (echo ", ")"),
    ("\necho ", ""),
    (" <<E\n", "\nE\necho "),
    (' <<"E"\n', "\nE\necho "),
]
TEMPLATE: Final = st.recursive(
    WORD | st.builds("'{}'".format, IN_SINGLE) | st.builds("$'{}'".format, IN_SINGLE),
    lambda inner: (
        st.builds(lambda pair, text: pair[0] + text + pair[1], st.sampled_from(AROUND), inner)
        | st.builds(str.__add__, inner, inner)
    ),
    max_leaves=6,
)
HOSTILE: Final = st.sampled_from(
    ["; echo PWN", "$(echo PWN)", "`echo PWN`", "'", '"', "\\", "a  b", "#", "x\nE\n", "{1,2}", "$HOME", ")", "}"]
)


@EXAMPLES
@given(TEMPLATE, HOSTILE)
def test_hostile_value_in_any_template_arrives_as_a_harmless_one_does(template: str, value: str) -> None:
    """Where the shell prints MARK for the value MARK, it prints the hostile value for that, or we refuse it."""
    point = EntryPoint("main", (Parameter("x"),), f"echo {template}")

    def output(text: str) -> bytes | None:
        argument = Argument("x", ParameterType.STRING, text, text, declared=True)
        command = render_command(point, [argument])
        done = subprocess.run(["bash", "-c", command], cwd="/proc/self", capture_output=True, timeout=60)
        # Unquoted substitutions split and join words at blanks, which is the template's wish.
        return b"".join(done.stdout.split()) if done.returncode == 0 else None

    try:
        harmless = output("MARK")
        if harmless is None or b"MARK" not in harmless:
            return
        assert output(value) == harmless.replace(b"MARK", "".join(value.split()).encode())
    except ProjectError:
        return
