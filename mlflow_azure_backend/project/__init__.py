"""What a project declares, and the command that follows from it.

``spec.py`` reads the MLproject (``marked_yaml.py`` keeps its lines for error messages), ``parameters.py`` gives its
parameters their values, ``command.py`` writes them into the command so that the program gets them verbatim.
"""

from __future__ import annotations

from mlflow_azure_backend.project.marked_yaml import Note
from mlflow_azure_backend.project.parameters import Argument, bind_parameters, is_remote, render_command
from mlflow_azure_backend.project.spec import (
    DeclaredEnvironment,
    DockerEnvironment,
    EntryPoint,
    EnvironmentKind,
    Parameter,
    ParameterType,
    ProjectSpec,
    find_entry_point,
    load_project,
)

__all__ = [
    "Argument",
    "DeclaredEnvironment",
    "DockerEnvironment",
    "EntryPoint",
    "EnvironmentKind",
    "Note",
    "Parameter",
    "ParameterType",
    "ProjectSpec",
    "bind_parameters",
    "find_entry_point",
    "is_remote",
    "load_project",
    "render_command",
]
