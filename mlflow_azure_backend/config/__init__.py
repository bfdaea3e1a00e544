"""What the user asks for: ``backend_config``, files of defaults and profiles, checked as a whole.

``schema.py`` holds the keys, ``blocks.py`` the objects below them, ``values.py`` how single values are written,
``load.py`` the way from several places to one ``BackendConfig``, ``defaults.py`` and ``yaml_file.py`` the files,
``foreign.py`` the keys that are not ours, ``targets.py`` who can honour what, ``problems.py`` the words for mistakes.
The rest of the package imports from here.
"""

from __future__ import annotations

from mlflow_azure_backend.config.blocks import (
    DataInput,
    DataOutput,
    Distribution,
    Environment,
    Identity,
    NewCompute,
    QueueSettings,
    Resources,
    Retry,
    Service,
    SnapshotRules,
    TargetName,
    Workspace,
)
from mlflow_azure_backend.config.foreign import MlflowOptions, split_mlflow_options
from mlflow_azure_backend.config.load import LoadedConfig, load_config, read_config_argument
from mlflow_azure_backend.config.schema import BackendConfig, json_schema
from mlflow_azure_backend.config.targets import check_honoured

__all__ = [
    "BackendConfig",
    "DataInput",
    "DataOutput",
    "Distribution",
    "Environment",
    "Identity",
    "LoadedConfig",
    "MlflowOptions",
    "NewCompute",
    "QueueSettings",
    "Resources",
    "Retry",
    "Service",
    "SnapshotRules",
    "TargetName",
    "Workspace",
    "check_honoured",
    "json_schema",
    "load_config",
    "read_config_argument",
    "split_mlflow_options",
]
