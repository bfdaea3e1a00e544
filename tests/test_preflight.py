"""Preflight: what is sure to fail is refused before anything starts, and nothing else is.

Every refusal here is proven by bash, which fails at the same command, and every silence by a command that passes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_azure_backend.cli import main
from mlflow_azure_backend.environment.spec import EnvironmentSpec
from mlflow_azure_backend.errors import BackendError
from mlflow_azure_backend.planning import Order, Silence, plan_job
from mlflow_azure_backend.preflight import Finding, local_site, look_ahead
from mlflow_azure_backend.preflight.shell import read_steps
from mlflow_azure_backend.project import EntryPoint, bind_parameters, find_entry_point, load_project
from mlflow_azure_backend.snapshot import SnapshotRules, take_snapshot

Write = Callable[[Mapping[str, str]], Path]
ROOT = Path(__file__).parents[1]
ZOO = ROOT / "tests" / "projects"
NOT_OURS = "no environment file"
"""A note that every project without an environment file gets."""

FILES = {
    "train.py": "import sys\nprint(sys.argv)\n",
    "prepare.py": "open('out.csv', 'w').write('1')\nopen('made.py', 'w').write('print(1)')\n",
    "chain.py": "import subprocess, sys\nsubprocess.run([sys.executable, 'train.py'], check=True)\n",
    "bad.py": "x = = 1\n",
    "sub/x.py": "print(1)\n",
    "pkg/__init__.py": "",
    "pkg/__main__.py": "print(1)\n",
    "pkg/mod.py": "print(1)\n",
    "lib/__init__.py": "",
    "namespace/m.py": "print(1)\n",
    "run.sh": "python train.py\n",
    "model.R": "1\n",
    "in.txt": "1\n",
    "requirements.txt": "",
    "Makefile": "train:\n\tpython train.py\n",
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that projects are started with, which do next to nothing: each is a real file on the path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    reads = 'for one; do case $one in -e) exit 0;; -*) ;; *) exec test -f "$one";; esac; done'
    for name, script in {"Rscript": reads, "make": "", "spark-submit": "", "torchrun": "", "pip": ""}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    # No other folder of the user's: what is on this machine by chance must not decide what a test sees.
    monkeypatch.setenv("PATH", os.pathsep.join((str(folder), str(Path(sys.executable).parent), "/usr/bin", "/bin")))


def mlproject(command: str, *parameters: str) -> str:
    block = "".join(f"\n      {parameter}" for parameter in parameters)
    header = f"\n    parameters:{block}" if parameters else ""
    return f"name: preflight\nentry_points:\n  main:{header}\n    command: {json.dumps(command)}\n"


def escaped(command: str) -> str:
    """A command without parameters, as an MLproject must write it."""
    return command.replace("{", "{{").replace("}", "}}")


def look(folder: Path, kind: Any = "current", params: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """What is said of a project that runs in its own folder."""
    entry_point = find_entry_point(load_project(folder), "main")
    arguments = bind_parameters(entry_point, params or {}, client_folder=folder, project_folder=folder)
    site = local_site(folder, None, EnvironmentSpec(kind, folder), os.environ, {})
    return look_ahead(entry_point, arguments, site, environment_file=None)


def bash(folder: Path, command: str) -> int:
    """The exit code of the command itself."""
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    return done.returncode


REFUSED = {
    "script": ("python trian.py --rate 1", ["trian.py", "train.py"]),
    "script with options of python": ("python -u -W ignore -X dev trian.py", ["trian.py"]),
    "script behind a variable": ("RATE=1 python trian.py", ["trian.py"]),
    "script behind env": ("env RATE=1 python trian.py", ["trian.py"]),
    "script behind exec": ("exec python trian.py", ["trian.py"]),
    "script in another folder": ("cd sub && python y.py", ["y.py"]),
    "script after harmless commands": ("set -x; mkdir -p out; export A=1; echo hello; python trian.py", ["trian.py"]),
    "script with set -e": ("set -e; python trian.py; python train.py", ["trian.py"]),
    "script in a pipe with pipefail": ("set -o pipefail; python trian.py | cat", ["trian.py"]),
    "script with a substitution": ("python trian.py --id $(date +%s)", ["trian.py"]),
    "script over two lines": ("python \\\n  trian.py", ["trian.py"]),
    "absolute script": ("python /nowhere/at/all.py", ["/nowhere/at/all.py"]),
    "shell script": ("bash -eu nope.sh", ["nope.sh"]),
    "R script": ("Rscript --vanilla modle.R --x 1", ["modle.R", "model.R"]),
    "program": ("./nope.sh", ["./nope.sh"]),
    "not executable": ("./run.sh", ["run.sh", "chmod +x ./run.sh"]),
    "command": ("pyhton train.py", ["pyhton", "python"]),
    "command nowhere": ("zoo-no-such-tool --help", ["zoo-no-such-tool"]),
    "old python": ("python2.5 train.py", ["python2.5"]),
    "folder": ("cd sbu && python x.py", ["sbu"]),
    "input": ("python train.py < nothing.txt", ["nothing.txt"]),
    "submodule": ("python -m pkg.mdo", ["pkg.mdo"]),
    "package without main": ("python -m lib", ["__main__.py"]),
    "module": ("python -um zoo_no_such_module", ["zoo_no_such_module"]),
    "module that is a slip": ("python -m trian", ["python -m train"]),
    "syntax": ("python bad.py", ["bad.py:1", "not valid Python"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_would_have_failed(tools: None, write_project: Write, case: str) -> None:
    command, words = REFUSED[case]
    folder = write_project({**FILES, "MLproject": mlproject(command)})
    (finding,) = look(folder)
    assert finding.is_certain
    assert finding.where == "MLproject:4"
    assert finding.next_step
    for word in words:
        assert word in str(finding)
    assert bash(folder, command) != 0


def test_a_requirements_file_that_pip_will_not_find(tools: None, write_project: Write) -> None:
    folder = write_project({**FILES, "MLproject": mlproject("pip install -q -r requirments.txt && python train.py")})
    (finding,) = look(folder)
    assert finding.is_certain
    assert "did you mean requirements.txt?" in str(finding)


ORDINARY = {
    "plain": "python train.py --rate 0.1",
    "python3": "python3 -u train.py",
    "folder first": "cd sub && python x.py",
    "folder and back": "cd sub && python ../train.py && cd .. && python train.py",
    "made folder": "mkdir -p a/b && cd a/b && python ../../train.py",
    "earlier step makes the data": "python prepare.py && python train.py --data out.csv",
    "earlier step makes the script": "python prepare.py && python made.py",
    "shell makes the script": "echo 'print(1)' > gen.py && python gen.py",
    "copy": "cp train.py copied.py && python copied.py",
    "make": "make train",
    "variable": "SCRIPT=train.py; python $SCRIPT",
    "variable in a path": 'python "$PWD/train.py" --out "$HOME/zoo"',
    "default of a variable": "python ${SCRIPT:-train.py}",
    "glob": "python tr*n.py in.*",
    "output": "python train.py --out model.pkl --save-dir models/new > log.txt 2>&1",
    "tee": "python train.py | tee -a log.txt",
    "input": "python train.py < in.txt",
    "input that was made": "echo 1 > new.txt; python train.py < new.txt",
    "here-document": "python - trian.py <<'EOF'\nprint('python trian.py')\nEOF\npython train.py",
    "here-document with a script": "cat > gen.py <<EOF\nprint(1)\nEOF\npython gen.py",
    "here-string": "python train.py <<< 'a < b'",
    "one-liner": "python -c 'import sys; print(sys.argv)' trian.py",
    "json": """python train.py --x '{"a": [1, 2]}' --y={}""",
    "quotes": """python "train.py" --name 'it'"'"'s' --other "a \\"b\\" c" --tab $'\\t'""",
    "nested bash": "bash -c 'test -f nope.py || python train.py'",
    "shell options": "bash -euo pipefail run.sh",
    "source": "source ./run.sh && zoo-no-such-tool || true",
    "module": "python -m pkg",
    "module in a package": "python -m pkg.mod --x 1",
    "namespace": "python -m namespace.m",
    "module of the standard library": "python -m json.tool --help",
    "module that is installed": "python -m pytest --version",
    "pip": "pip install -q -r requirements.txt && python train.py",
    "pip brings a command": "pip install zoo && if false; then zoo-no-such-tool; fi",
    "R": "Rscript model.R --x 1",
    "R expression": "Rscript -e 'mlflow::mlflow_source(\"nope.R\")' --args --x 1",
    "spark": "spark-submit --py-files nope.zip nope.py",
    "launcher": "torchrun --nproc_per_node 2 nope.py",
    "forgiven": "python trian.py || true",
    "guarded": "if [ -f trian.py ]; then python trian.py; fi",
    "tested": "[ ! -f trian.py ] || python trian.py",
    "loop": "for rate in 1 2; do python train.py $rate; done",
    "function": "zoo() { python train.py; }; zoo",
    "subshell": "(cd sub && python x.py)",
    "background": "python trian.py & python train.py; wait",
    "comment": "python train.py # python trian.py",
    "chained": "python chain.py",
    "ulimit": "ulimit -Sn 100; python train.py",
    "own path": "PATH=$PWD/bin:$PATH; zoo-tool",
    "path of one command": "PATH=$PWD/bin:$PATH zoo-tool",
    "changed in place": "sed -i 's/= =/=/' bad.py && python bad.py",
    "time": "time python train.py",
    "windows style": "python ./sub/../train.py",
    "ends early": "exit 0; python trian.py",
}


@pytest.mark.parametrize("case", ORDINARY)
def test_nothing_is_said_of_what_passes(tools: None, write_project: Write, case: str) -> None:
    folder = write_project({**FILES, "bin/zoo-tool": "#!/bin/sh\n", "MLproject": mlproject(escaped(ORDINARY[case]))})
    (folder / "bin" / "zoo-tool").chmod(0o755)
    assert look(folder, "current") == look(folder, "python") == ()
    assert bash(folder, ORDINARY[case]) == 0


NOTED = {
    "later line decides": "python trian.py; python train.py",
    "pipe": "python trian.py | cat",
    "after hours of preparation": "python prepare.py && python trian.py",
    "syntax of a later step": "python prepare.py && python bad.py",
}


@pytest.mark.parametrize("case", NOTED)
def test_what_is_not_certain_is_a_note(tools: None, write_project: Write, case: str) -> None:
    folder = write_project({**FILES, "MLproject": mlproject(NOTED[case])})
    (finding,) = look(folder)
    assert not finding.is_certain
    assert finding.next_step


def test_a_command_of_an_environment_that_is_not_built_yet(tools: None, write_project: Write) -> None:
    folder = write_project({**FILES, "MLproject": mlproject("zoo-no-such-tool train.py")})
    assert look(folder, "python") == ()
    folder = write_project({"MLproject": mlproject("pyhton train.py")})
    (finding,) = look(folder, "python")
    assert (finding.is_certain, finding.next_step) == (False, "did you mean python?")


# The arguments of a script.

ARGPARSE = """import argparse
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rate", type=float, default=0.1, help=f"{1}")
parser.add_argument("--mode", choices=["fast", "slow"])
group = parser.add_argument_group("more")
group.add_argument("-v", "--verbose", action="store_true")
group.add_argument("--shuffle", action=argparse.BooleanOptionalAction)
"""
RUN = "def main():\n    args = parser.parse_args()\n    print(args)\nif __name__ == '__main__':\n    main()\n"
USAGE = {
    "fine": (ARGPARSE + RUN, "--rate 1 -v --no-shuffle --mode=slow", None),
    "shortened": (ARGPARSE + RUN, "--verb --rat 1", None),
    "help": (ARGPARSE + RUN, "--help --nope", None),
    "unknown": (ARGPARSE + RUN, "--rtae 1", "--rtae"),
    "choice": (ARGPARSE + RUN, "--mode fats", "fats"),
    "type": (ARGPARSE + RUN, "--rate 0,5", "0,5"),
    "missing": (ARGPARSE + "parser.add_argument('--data', required=True)\n" + RUN, "", "--data"),
    "positional": (ARGPARSE + "parser.add_argument('data')\n" + RUN, "", "data"),
    "some are unknown on purpose": (ARGPARSE + "print(parser.parse_known_args())\n", "--nope 1", None),
    "never parsed": (ARGPARSE + "def main():\n    parser.parse_args()\n", "--nope 1", None),
    "parsed now and then": (ARGPARSE + "if 1 > 2:\n    parser.parse_args()\n", "--nope 1", None),
    "own list": (ARGPARSE + "parser.parse_args([])\n", "--nope 1", None),
    "own arguments": ("import sys\nsys.argv[1:] = []\n" + ARGPARSE + RUN, "--nope 1", None),
    "added elsewhere": (
        "def more(p):\n    p.add_argument('--nope')\n" + ARGPARSE + "more(parser)\n" + RUN,
        "--nope 1",
        None,
    ),
    "added in a loop": (ARGPARSE + "for n in ['nope']:\n    parser.add_argument('--' + n)\n" + RUN, "--nope 1", None),
    "rest": (ARGPARSE + "parser.add_argument('rest', nargs=argparse.REMAINDER)\n" + RUN, "x --nope 1", None),
    "caught": (ARGPARSE + "try:\n    parser.parse_args()\nexcept SystemExit:\n    pass\n", "--nope 1", None),
    "left before": (
        ARGPARSE + "def main():\n    if parser:\n        return\n    parser.parse_args()\nmain()\n",
        "--nope 1",
        None,
    ),
    "own class": (
        "import argparse\nclass P(argparse.ArgumentParser):\n    def parse_args(self):\n        pass\n"
        "parser = P()\nparser.parse_args()\n",
        "--nope 1",
        None,
    ),
    "from a module": (
        "from argparse import ArgumentParser\np = ArgumentParser()\np.add_argument('x', type=int)\np.parse_args()\n",
        "1.0",
        "1.0",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_a_script_that_will_refuse_its_arguments(tools: None, write_project: Write, case: str) -> None:
    source, options, word = USAGE[case]
    folder = write_project({"MLproject": mlproject(f"python train.py {options}"), "train.py": source})
    findings = look(folder)
    assert [finding.is_certain for finding in findings] == ([] if word is None else [True])
    assert word is None or word in str(findings[0])
    assert (bash(folder, f"python train.py {options}") == 0) == (word is None)


CLICK = "import sys\nassert sys.argv[-2] in ('--batch-size', '--bf16', '--alpha', '--betas'), sys.argv\n"
DECLARED = ("alpha: {default: 1}", "fp16: {default: 0}", "beta: {default: 0}", "rate: {default: 0}")
SLIPS = {
    "two letters swapped": ("aplha", "-P alpha=2"),
    "a letter too many": ("allpha", "-P alpha=2"),
    "a letter too few": ("alha", "-P alpha=2"),
    "another option": ("bf16", None),
    "a plural": ("betas", None),
    "mentioned by the program": ("batch_size", None),
    "nothing near": ("epochs", None),
}


@pytest.mark.parametrize("case", SLIPS)
def test_an_undeclared_parameter_that_is_a_slip(tools: None, write_project: Write, case: str) -> None:
    name, meant = SLIPS[case]
    command = "python train.py --alpha {alpha} --fp16 {fp16} --beta {beta} --rate {rate}"
    folder = write_project({"MLproject": mlproject(command, *DECLARED), "train.py": CLICK})
    findings = look(folder, params={name: "2"})
    assert [finding.next_step for finding in findings if finding.is_certain] == (
        [] if meant is None else [f"did you mean {meant}?"]
    )
    assert look(folder, params={name: "2", "alpha": "3"}) == ()


def test_a_slip_is_not_certain_when_the_command_itself_has_that_option(tools: None, write_project: Write) -> None:
    command = "python train.py --aplha {alpha}"
    folder = write_project({"MLproject": mlproject(command, "alpha: {default: 1}"), "train.py": "print(1)\n"})
    assert look(folder, params={"aplha": "2"}) == ()


# Through the doors.


def plan(folder: Path, params: Mapping[str, str] | None = None, **config: Any) -> tuple[str, ...]:
    """The notes of a plan, without the one that is not ours."""
    order = Order(str(folder), "main", None, params or {}, {"environment": "current", **config}, folder)
    request = plan_job(order, "plan", folder.parent / "checkout", os.environ, Silence())
    return tuple(note for note in request.notes if NOT_OURS not in note)


STATICALLY_CERTAIN = (
    *("invalid-choice", "merge-conflict", "missing-executable", "missing-option", "missing-script", "not-executable"),
    *("python-version--two", "source-not-utf8", "strange-character", "syntax-error", "unknown-option"),
    *("value-taken-for-option", "windows-line-endings", "wrong-indentation", "wrong-parameter-type"),
)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ZOO.glob("*/fix.json")))
def test_of_the_zoo_what_is_certain_is_refused_in_the_words_of_the_diagnosis(home: Path, name: str) -> None:
    spec = json.loads((ZOO / name / "fix.json").read_text(encoding="utf-8"))
    params = spec.get("conditions", {}).get("parameters", {})
    if name not in STATICALLY_CERTAIN:
        assert plan(ZOO / name, params) == ()
        return
    with pytest.raises(BackendError) as refusal:
        plan(ZOO / name, params)
    assert spec["expect"]["cause contains"] in str(refusal.value)
    assert refusal.value.next_step


@pytest.mark.parametrize(
    ("project", "entry_point"),
    [
        (file.parent, entry_point.name)
        for file in sorted((ROOT / "sample_projects").glob("*/MLproject"))
        for entry_point in load_project(file.parent).entry_points
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_nothing_is_said_of_the_sample_projects(project: Path, entry_point: str) -> None:
    found = find_entry_point(load_project(project), entry_point)
    required = {one.name: "https://example.org/x" for one in found.parameters if one.default is None}
    arguments = bind_parameters(found, required, client_folder=project)
    for kind in ("current", "python"):
        spec = EnvironmentSpec("current" if kind == "current" else "python", project)
        site = local_site(project, None, spec, os.environ, {})
        assert look_ahead(found, arguments, site, environment_file=None) == ()


def test_a_left_out_script_runs_in_the_project_and_not_in_the_snapshot(home: Path, write_project: Write) -> None:
    files = {"MLproject": mlproject("python train.py"), "train.py": "print(1)\n", ".gitignore": "*.py\n"}
    folder = write_project(files)
    assert plan(folder) == ()
    with pytest.raises(BackendError, match=r"train\.py exists here but was left out by \.gitignore:1") as refusal:
        plan(folder, workdir="snapshot")
    assert '{"snapshot": {"include": ["train.py"]}}' in str(refusal.value.next_step)
    assert plan(folder, workdir="snapshot", snapshot={"include": ["train.py"]}) == ()


def test_the_snapshot_says_nothing_of_what_it_holds(home: Path, write_project: Write) -> None:
    files = {"MLproject": mlproject("cd sub && python ../train.py && ls"), "sub/a.txt": "", "train.py": ""}
    folder = write_project(files)
    assert plan(folder, workdir="snapshot") == ()
    folder = write_project({"MLproject": mlproject("ls"), ".gitignore": "*.sh\n"})
    assert plan(folder, workdir="snapshot") == ()


def test_left_out_data_is_a_note_and_an_output_is_none(home: Path, write_project: Write) -> None:
    files = {"train.py": "", "data/a.csv": "1", "models/m.pkl": "1", ".gitignore": "data/\nmodels/\n"}
    command = "python train.py --data {data} --input-file=data/a.csv --output models/m.pkl --data-out models/m.pkl"
    folder = write_project({**files, "MLproject": mlproject(command, "data: {type: string, default: data/a.csv}")})
    assert plan(folder) == ()
    (note,) = plan(folder, workdir="snapshot")
    assert "data/a.csv exists here but was left out by .gitignore:1" in note


def test_all_that_is_wrong_is_said_in_one_line(home: Path, write_project: Write) -> None:
    folder = write_project({"MLproject": mlproject("python trian.py && python two.py < three.txt"), "train.py": ""})
    with pytest.raises(BackendError) as refusal:
        plan(folder)
    assert "\n" not in str(refusal.value)
    assert "trian.py" in str(refusal.value)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_command_line_refuses_before_anything_starts(
    store: str, home: Path, write_project: Write, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    folder = write_project({"MLproject": mlproject("echo x > started && python nope/trian.py")})
    assert main([command, str(folder)], standalone_mode=False) == 1
    printed = capsys.readouterr().err
    assert "MLproject:4: the script nope/trian.py does not exist" in printed
    assert "Traceback" not in printed
    assert not (folder / "started").exists()
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_note_does_not_keep_a_job_from_running(
    store: str, write_project: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_project({"MLproject": mlproject("python trian.py; python train.py"), "train.py": "print('ran')\n"})
    with pytest.raises(SystemExit) as end:
        main(["run", str(folder), "--experiment-name", "contract"], standalone_mode=False)
    assert end.value.code == 0
    printed = capfd.readouterr()
    assert "ran\n" in printed.out
    assert "the script trian.py does not exist" in printed.err


# How a command is read.


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that many commands are tried on; none is run."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (r"""a 'b c' "d \"e" f\ g""", [["a", "b c", 'd "e', "f g"]]),
        ("a $b \"$c\" *.py ~/x 'd'", [["a", None, None, None, None, "d"]]),
        ("a|b&&c;d\ne # f", [["a"], ["b"], ["c"], ["d"], ["e"]]),
        ("a > x 2>&1 < y b", [["a", "b"]]),
        ("X=1 Y='2 3' a", [["a"]]),
        ("a $(b 'c)' \"$(d)\") e", [["a", None, "e"]]),
        ("a <<E\nb\nE\nc", [["a"], ["c"]]),
        ("a; (b)", [["a"]]),
        ("a; if b; then c; fi", [["a"]]),
        ("a 'b", []),
        ("a <(b)", []),
    ],
)
def test_a_command_is_read_as_bash_reads_it(command: str, words: list[list[str | None]]) -> None:
    assert [[word.text for word in step.words] for step in read_steps(command)] == words


STRANGE = st.text(alphabet="ab '\"\\$(){}`|&;<>\n#=~*[]!-\ue000", max_size=60)
WORDS = st.sampled_from(
    (
        *(
            "python",
            "-m",
            "-u",
            "train.py",
            "pkg.mod",
            "cd",
            "..",
            "sub",
            "&&",
            ";",
            "|",
            "<",
            ">",
            "in.txt",
            "./run.sh",
        ),
        *(
            "pip",
            "install",
            "-r",
            "bash",
            "-c",
            "set",
            "-e",
            "env",
            "A=1",
            "exec",
            "time",
            "mkdir",
            "--data",
            "",
            "'\0'",
        ),
        *("x" * 300, "/", "//", "--", "-", "\ud800", "''", "export", "PATH", "command", "trian.py", "nope/trian.py"),
    )
)


@given(st.one_of(STRANGE, st.lists(WORDS, max_size=12).map(" ".join)))
@settings(deadline=None)
def test_no_command_is_too_strange(project: Path, command: str) -> None:
    for kind in ("current", "python"):
        environment = EnvironmentSpec("current" if kind == "current" else "python", project)
        for snapshot in (None, take_snapshot(project, SnapshotRules(), cache=None)):
            site = local_site(project, snapshot, environment, os.environ, {})
            entry_point = EntryPoint("main", (), escaped(command), 1)
            for finding in look_ahead(entry_point, (), site, environment_file=None):
                assert "\n" not in str(finding)
