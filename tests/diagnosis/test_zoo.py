"""The zoo of causes: every tiny project fails for its cause, and passes once the printed fix is applied.

``tests/projects/<cause>/fix.json`` says what is to be printed (``expect``), under which ``conditions`` the project
runs, and how the fix is applied: ``"the printed fix"`` reads it from the printed text alone; a list holds what a person
does after reading it. Here bash runs the command by itself, without the backend.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_azure_backend.diagnosis import Evidence, diagnose
from mlflow_azure_backend.status import TerminationReason

ZOO = Path(__file__).parents[1] / "projects"
PROJECTS = sorted(path.name for path in ZOO.iterdir() if (path / "fix.json").is_file())
TAIL = 64 * 1024
EvidenceOf = Callable[..., Evidence]


@dataclass
class Run:
    """A project in a folder of its own, and what the fix has changed about how it is run."""

    source: Path
    folder: Path
    scratch: Path
    conditions: dict[str, Any]
    parameters: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def project(self) -> dict[str, Any]:
        loaded = yaml.safe_load((self.folder / "MLproject").read_text(encoding="utf-8"))
        assert isinstance(loaded, dict)
        return loaded

    def command(self) -> tuple[str, dict[str, str]]:
        entry = self.project["entry_points"]["main"]
        declared = {name: str(spec["default"]) for name, spec in entry.get("parameters", {}).items()}
        for name, spec in entry.get("parameters", {}).items():
            if spec["type"] == "path" and name not in self.parameters:
                declared[name] = str(self.source / spec["default"])
        given = {**declared, **self.parameters}
        quoted = {name: shlex.quote(value) for name, value in given.items()}
        extra = [f" --{name} {value}" for name, value in quoted.items() if name not in declared]
        return entry["command"].format(**quoted) + "".join(extra), given

    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.interpreter()}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.scratch),
            "LANG": "C.UTF-8",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.scratch}/mlflow.db",
            "PYTHONUNBUFFERED": "1",
            **self.variables,
        }

    def interpreter(self) -> Path:
        """The folder of ``python``: ours, or an environment with what the project asks for, borrowed from ours."""
        if "python_env" not in self.project:
            return Path(sys.executable).parent
        wanted = yaml.safe_load((self.folder / "python_env.yaml").read_text(encoding="utf-8"))["dependencies"]
        prefix = self.scratch / ("full" if wanted else "bare")
        if not prefix.exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
            if wanted:
                (path,) = prefix.glob("lib/python3*/site-packages")
                (path / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        return prefix / "bin"

    def execute(self, evidence: EvidenceOf) -> Evidence:
        command, parameters = self.command()
        log = self.scratch / "log"
        reason = TerminationReason.EXIT_CODE
        with log.open("wb") as stream:
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            try:
                code = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                code, reason = process.wait(), TerminationReason.TIMEOUT
        signal = -code if code < 0 else None
        if code == 0:
            reason = TerminationReason.SUCCEEDED
        elif signal is not None and reason is TerminationReason.EXIT_CODE:
            reason = TerminationReason.SIGNAL
        return evidence(
            log.read_bytes()[-TAIL:],
            self.folder,
            exit_code=code if signal is None else 128 + signal,
            signal=signal,
            reason=reason.value,
            left_out=self.conditions.get("left_out", {}).get,
            environment_file=self.project.get("python_env"),
            parameters=parameters,
            tracking_uri=self.environment()["MLFLOW_TRACKING_URI"],
            timeout=self.timeout,
            working_folder_is_snapshot=bool(self.conditions.get("snapshot") or self.conditions.get("left_out")),
        )


def lay_out(name: str, tmp_path: Path) -> tuple[Run, dict[str, Any]]:
    source = ZOO / name
    spec = json.loads((source / "fix.json").read_text(encoding="utf-8"))
    conditions = spec.get("conditions", {})
    folder, scratch = tmp_path / "a project's folder", tmp_path / "scratch"
    scratch.mkdir()
    left_out = set(conditions.get("left_out", {}))
    shutil.copytree(source, folder)
    for path in left_out:
        (folder / path).unlink()
    run = Run(source, folder, scratch, conditions, dict(conditions.get("parameters", {})))
    run.timeout = conditions.get("timeout")
    return run, spec


def payload(fix: str) -> str:
    """What can be pasted: all that follows the last ``":  "``."""
    return fix.rpartition(":  ")[2]


def apply_printed(run: Run, fix: str) -> None:
    """Apply a fix that a person would paste, from the printed text alone."""
    phrase, text = fix.rpartition(":  ")[0], payload(fix)
    words = shlex.split(text) if text.startswith(("-P ", "--backend-config ")) else []
    if words[:1] == ["-P"]:
        run.parameters.pop(phrase.removeprefix("in place of -P "), None)
        name, _, value = words[1].partition("=")
        run.parameters[name] = value
    elif words[:1] == ["--backend-config"]:
        apply_config(run, json.loads(words[1]))
    elif place := re.search(r"in (.+):(\d+) write$", phrase):
        edit(run.folder / place[1], int(place[2]), text)
    elif place := re.search(r"delete in (.+)$", phrase):
        lines = (run.folder / place[1]).read_text(encoding="utf-8").splitlines()
        edit(run.folder / place[1], lines.index(text) + 1, "")
    elif place := re.search(r"add to the dependencies in (.+)$", phrase):
        path = run.folder / place[1]
        path.write_text(path.read_text(encoding="utf-8").replace(" []", f"\n  {text}"), encoding="utf-8")
    elif phrase == "declare it in MLproject":
        path = run.folder / "MLproject"
        name = text.partition(":")[0]
        path.write_text(
            re.sub(rf"(?m)(?<=^      ){name}:.*$", text, path.read_text(encoding="utf-8")), encoding="utf-8"
        )
    else:
        subprocess.run(["bash", "-c", text], cwd=run.folder, check=True)


def apply_config(run: Run, config: Mapping[str, Any]) -> None:
    run.variables.update(config.get("environment_variables", {}))
    for path in config.get("snapshot", {}).get("include", ()):
        shutil.copy(run.source / path, run.folder / path)
    if "timeout" in config:
        run.timeout = float(config["timeout"].removesuffix("s"))


def apply_by_hand(run: Run, action: Mapping[str, Any]) -> None:
    """Apply what a person does after reading a fix."""
    run.parameters.update(action.get("parameters", {}))
    apply_config(run, action.get("backend_config", {}))
    for name, text in action.get("write", {}).items():
        (run.folder / name).write_text(text, encoding="utf-8")
    if "shell" in action:
        subprocess.run(["bash", "-c", action["shell"]], cwd=run.folder, check=True)


def edit(path: Path, number: int, source: str) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")
    indent = lines[number - 1][: len(lines[number - 1]) - len(lines[number - 1].lstrip())]
    lines[number - 1] = indent + source
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", PROJECTS)
def test_the_cause_is_named_and_its_fix_makes_the_run_pass(name: str, evidence: EvidenceOf, tmp_path: Path) -> None:
    run, spec = lay_out(name, tmp_path)
    seen = run.execute(evidence)
    log = seen.log_tail.decode("utf-8", "replace")
    assert seen.exit_code != 0, log

    said = diagnose(seen)
    expected = spec["expect"]
    assert said.cause_id == expected["cause_id"], (said, log)
    assert expected["cause contains"] in said.cause
    assert said.at == expected["at"]
    if "fix contains" in expected:
        assert said.fix is not None
        assert expected["fix contains"] in said.fix

    if spec["apply"] == "the printed fix":
        assert said.fix is not None
        apply_printed(run, said.fix)
    else:
        for action in spec["apply"]:
            apply_by_hand(run, action)
    after = run.execute(evidence)
    assert after.exit_code == 0, after.log_tail.decode("utf-8", "replace")


def test_the_zoo_holds_at_least_forty_causes() -> None:
    specs = (json.loads((ZOO / name / "fix.json").read_text(encoding="utf-8")) for name in PROJECTS)
    assert len({spec["expect"]["cause_id"] for spec in specs}) >= 40


def test_a_second_run_with_the_fault_handler_shows_the_line_of_a_segmentation_fault(
    evidence: EvidenceOf, tmp_path: Path
) -> None:
    run, _ = lay_out("segmentation-fault", tmp_path)
    fix = diagnose(run.execute(evidence)).fix
    assert fix is not None
    apply_printed(run, fix)
    again = diagnose(run.execute(evidence))
    assert (again.cause_id, again.at, again.fix) == (
        "segmentation-fault",
        "train.py:3  print(ctypes.string_at(0))",
        None,
    )
