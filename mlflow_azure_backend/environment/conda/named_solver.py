"""conda, mamba or micromamba as the solver, where the user names one: asked as conda-lock asks it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

from mlflow_azure_backend.environment.conda.channels import public_channel
from mlflow_azure_backend.environment.conda.wanted import virtual_packages_of
from mlflow_azure_backend.environment.indexes import redact
from mlflow_azure_backend.environment.uv_process import shortened
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlflow_azure_backend.environment.spec import CondaSpec


def solve_by(
    program: str, conda: CondaSpec, wanted: Sequence[str], channels: Sequence[str], subdir: str, cache: Path
) -> list[dict[str, Any]]:
    """Let a program of the user's solve for one platform.

    Args:
        program: The path of a conda, mamba or micromamba.
        conda: For its declared virtual packages.
        wanted: Match specifications.
        channels: In their order.
        subdir: The platform in conda's words.
        cache: A folder for what is in between.

    Returns:
        What would be fetched, each as its channel's repodata has it, with its address.

    Raises:
        EnvironmentUnavailable: The program cannot be started, finds nothing, or answers otherwise than conda does.
    """
    from conda_lock.conda_solver import solve_specs_for_arch
    from conda_lock.models.channel import Channel
    from conda_lock.virtual_package import FakeRepoData, VirtualPackage

    with tempfile.TemporaryDirectory(dir=cache, prefix="virtual-packages-") as folder:
        # conda-lock's own temporary folders would outlive this process, which ends without Python's clearing up.
        tempfile.tempdir = folder
        declared = FakeRepoData(base_path=folder)
        for name, value in virtual_packages_of(subdir, dict(conda.virtual_packages)).items():
            version, _, build = value.partition(" ")
            declared.add_package(VirtualPackage(name=name, version=version, build_string=build), [subdir])
        declared.write()
        sources = [*(Channel(url=channel, used_env_vars=()) for channel in channels), declared.channel]
        try:
            with declared, declared.conda_virtual_package_overrides(subdir):
                found = solve_specs_for_arch(program, sources, list(wanted), subdir)
            packages = [package for package in found["actions"]["FETCH"] if not package["name"].startswith("__")]
            # Its own configuration may have put a token there.
            return [{**package, "url": public_channel(package["url"])} for package in packages]
        except subprocess.CalledProcessError as error:
            what = f"{program} finds nothing for {subdir}: {_reason(str(error.stdout or error.stderr))}"
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            what = f"{program} does not answer as conda does ({type(error).__name__}: {redact(str(error))})"
        finally:
            tempfile.tempdir = None
    raise EnvironmentUnavailable(shortened(what), next_step="rattler solves when environment.solver is left out")


def _reason(said: str) -> str:
    """The message in the JSON that conda, or the problems in that which micromamba, leaves when it fails."""
    try:
        answer = json.loads(said[said.index("{") :])
        said = str(answer.get("message") or " ".join(answer["solver_problems"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        said = said.strip().rpartition("\n")[2]
    return redact(" ".join(said.split())) or "it does not say why"
