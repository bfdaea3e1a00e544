"""The blocks of ``backend_config``: the objects that stand below its keys.

What a cluster takes has the names and words of ``az ml``'s command job
(https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-command).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator, model_validator

from mlflow_azure_backend.config.values import (
    Arguments,
    ComputeName,
    Gpus,
    Line,
    PathText,
    ResourceName,
    Size,
    Text,
    Texts,
    Written,
    refused,
)
from mlflow_azure_backend.redaction import without_credentials

if TYPE_CHECKING:
    from pydantic import ValidationInfo
    from pydantic.config import JsonDict

TargetName = Literal["local", "docker", "cluster"]
"""The three kinds of compute target."""

ON_ALL: Final[JsonDict] = {"targets": ["local", "docker", "cluster"]}
ON_DOCKER: Final[JsonDict] = {"targets": ["docker"]}
ON_CLUSTER: Final[JsonDict] = {"targets": ["cluster"]}
ON_THIS_MACHINE: Final[JsonDict] = {"targets": ["local", "docker"]}
ON_CONTAINERS: Final[JsonDict] = {"targets": ["docker", "cluster"]}

DataType = Literal["uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model"]
"""Azure ML's asset types."""
RetryReason = Literal["preemption", "capacity", "service"]
"""What a retry can be for; a user's mistake is never retried."""


class Block(BaseModel):
    """A mapping of keys: frozen, strict, closed; a key that is null has its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        # An unknown key stays, null or not: it is a mistake either way.
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


class NewCompute(Block):
    """An Azure ML compute cluster that is created when there is none of its name."""

    name: ComputeName = Field(description="Name of the cluster.", examples=["cpu-cluster"])
    size: Text = Field(description="Virtual machine size.", examples=["Standard_DS3_v2"])
    min_instances: int = Field(0, ge=0, description="Nodes that are kept when idle; 0 costs nothing.")
    max_instances: int = Field(1, ge=1, validate_default=True, description="Nodes at most.", examples=[4])
    tier: Literal["dedicated", "low_priority"] = Field(
        "dedicated", description="`low_priority` nodes cost less and may be taken away."
    )

    @field_validator("name")
    @classmethod
    def _is_a_cluster(cls, name: str) -> str:
        if name in {"local", "docker", "serverless"}:
            raise refused(f'a cluster cannot be called "{name}"')
        return name

    @field_validator("max_instances")
    @classmethod
    def _holds_the_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("min_instances", 0):
            raise refused("must be at least min_instances")
        return most


class Workspace(Block):
    """An Azure ML workspace, with the names that ``config.json`` has."""

    subscription_id: ResourceName = Field(description="The subscription's id.")
    resource_group: ResourceName = Field(description="The resource group's name.")
    workspace_name: ResourceName = Field(description="The workspace's name.")


class Environment(Block):
    """How the project's own environment is made."""

    image: Line | None = Field(
        None,
        description="Base image for containers; null: one that fits.",
        examples=["python:3.11-slim"],
        json_schema_extra=ON_CONTAINERS,
    )
    channels: Texts | None = Field(
        None,
        description="Conda channels that replace those of the environment file; null: the file's.",
        examples=[["conda-forge"]],
        json_schema_extra=ON_ALL,
    )
    virtual_packages: Mapping[str, Written] = Field(
        default_factory=dict,
        description="Conda virtual packages that the solver may count on, with their versions.",
        examples=[{"__cuda": "12.4"}],
        json_schema_extra=ON_ALL,
    )
    solver: Text | None = Field(
        None,
        description="A conda, mamba or micromamba that solves, by name on PATH or by path; null: rattler solves.",
        examples=["micromamba"],
        json_schema_extra=ON_ALL,
    )
    build: Literal["auto", "start", "image"] = Field(
        "auto",
        description="`start`: install at the job's start; `image`: build an image first; `auto`: what is ready first.",
        json_schema_extra=ON_CLUSTER,
    )
    inject_mlflow: bool = Field(
        False, description="Add MLflow to an environment that has none.", json_schema_extra=ON_ALL
    )

    @field_validator("channels")
    @classmethod
    def _holds_no_credentials(cls, channels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for channel in channels or ():
            found = re.search(r"://([^/@]*)@|/t/([^/]+)/", channel)
            if found and re.sub(r"\$\{?\w+\}?|:", "", found[1] or found[2] or ""):
                raise refused("credentials would be stored with the run: use ~/.netrc or https://$USER:$PASSWORD@HOST/")
        return channels


class Resources(Block):
    """What a container or a job may use."""

    instance_count: int = Field(1, ge=1, description="Number of nodes.", examples=[2], json_schema_extra=ON_CLUSTER)
    instance_type: Text | None = Field(
        None,
        description="Virtual machine size or instance type; null: the compute's.",
        examples=["Standard_NC6s_v3"],
        json_schema_extra=ON_CLUSTER,
    )
    shm_size: Size | None = Field(
        None, description="Shared memory, bytes; null: the engine's.", examples=["2g"], json_schema_extra=ON_CONTAINERS
    )
    docker_args: Arguments = Field(
        (),
        description="Further arguments of `docker run`.",
        examples=["--ipc host", ["--ipc", "host"]],
        json_schema_extra=ON_CONTAINERS,
    )
    gpus: Gpus | None = Field(
        None, description="Number of GPUs, or `all`; null: none.", examples=["all", 1], json_schema_extra=ON_DOCKER
    )
    memory: Size | None = Field(
        None, description="Memory limit, bytes; null: none.", examples=["8GiB"], json_schema_extra=ON_DOCKER
    )
    cpus: float | None = Field(
        None, gt=0, description="CPU limit in cores; null: none.", examples=[1.5], json_schema_extra=ON_DOCKER
    )


class Distribution(Block):
    """How many processes a distributed job starts."""

    type: Literal["pytorch", "mpi", "tensorflow"] = Field(description="The framework that joins the processes.")
    process_count_per_instance: int | None = Field(
        None, ge=1, description="Processes on each node, for pytorch and mpi; null: 1.", examples=[4]
    )
    worker_count: int | None = Field(
        None, ge=1, description="Workers, for tensorflow; null: one on each node.", examples=[2]
    )
    parameter_server_count: int | None = Field(
        None, ge=0, description="Parameter servers, for tensorflow; null: 0.", examples=[1]
    )

    @field_validator("process_count_per_instance", "worker_count", "parameter_server_count")
    @classmethod
    def _belongs_to_the_type(cls, count: int | None, info: ValidationInfo) -> int | None:
        framework = info.data.get("type")
        belongs = (framework == "tensorflow") != (info.field_name == "process_count_per_instance")
        if count is not None and framework is not None and not belongs:
            raise refused(f"does not go with type {framework}")
        return count


class DataInput(Block):
    """Data that the job reads; its variable ``AZURE_ML_INPUT_NAME`` says where."""

    path: PathText = Field(
        description="A file or folder here, or a URI; a relative one starts at the current folder.",
        examples=["azureml://datastores/workspaceblobstore/paths/train/"],
    )
    type: DataType = Field("uri_folder", description="What it is, in Azure ML's words.")
    mode: Literal["ro_mount", "download", "direct"] | None = Field(
        None, description="How a node gets it; null: `ro_mount`.", json_schema_extra=ON_CLUSTER
    )

    @field_serializer("path", when_used="json")
    def _is_written_without_credentials(self, path: str) -> str:
        return without_credentials(path)


class DataOutput(Block):
    """Data that the job writes; its variable ``AZURE_ML_OUTPUT_NAME`` says where to."""

    path: PathText | None = Field(
        None,
        description="Where it goes; null: the run's artifacts, or the workspace's default datastore.",
        examples=["azureml://datastores/workspaceblobstore/paths/models/"],
    )
    type: DataType = Field("uri_folder", description="What it is, in Azure ML's words.")
    mode: Literal["rw_mount", "upload", "direct"] | None = Field(
        None, description="How a node brings it there; null: `rw_mount`.", json_schema_extra=ON_CLUSTER
    )


class Retry(Block):
    """When a job that failed is tried again as a new attempt of the same run."""

    max: int = Field(ge=0, le=100, description="Further attempts at most.", examples=[3])
    on: Annotated[tuple[RetryReason, ...], Field(strict=False)] = Field(
        ("preemption", "capacity", "service"), description="The kinds of failure that are tried again."
    )


class QueueSettings(Block):
    """How the job waits for compute."""

    job_tier: Literal["spot", "basic", "standard", "premium"] | None = Field(
        None, description="The tier of serverless compute; null: the workspace's."
    )
    priority: Literal["low", "medium", "high"] | None = Field(None, description="Priority in the queue; null: medium.")


class Identity(Block):
    """As whom the job reads data."""

    type: Literal["managed", "user_identity", "aml_token"] = Field(description="The kind of identity.")
    client_id: Text | None = Field(None, description="A managed identity's client id.")
    object_id: Text | None = Field(None, description="A managed identity's object id.")
    msi_resource_id: Text | None = Field(None, description="A managed identity's resource id.")

    @field_validator("client_id", "object_id", "msi_resource_id")
    @classmethod
    def _names_a_managed_identity(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("type", "managed") != "managed":
            raise refused("goes with type managed only")
        return value


class Service(Block):
    """A way into the running job."""

    type: Literal["ssh", "jupyter_lab", "vs_code", "tensor_board"] = Field(description="The kind of service.")
    port: int | None = Field(None, ge=1, le=65535, description="Port on the node; null: chosen.")
    nodes: Literal["all"] | None = Field(None, description="`all` nodes; null: the first.")
    ssh_public_keys: Text | None = Field(None, description="Public keys that may log in, for ssh.")
    log_dir: Text | None = Field(None, description="Folder of the event files, for tensor_board.")
    properties: Mapping[str, str] = Field(default_factory=dict, description="Further settings of the service.")


class SnapshotRules(Block):
    """Which files of the project travel with the job."""

    include: Texts = Field((), description="Patterns of files to take although an ignore rule leaves them out.")
    exclude: Texts = Field((), description="Patterns of files to leave out.", examples=[["data/", "*.ckpt"]])
    allow: Texts = Field(
        (), description="Files that look like secrets and may travel all the same.", examples=[["certs/public.pem"]]
    )
    max_size: Size = Field(
        300_000_000, description="Bytes that the files may have together.", examples=["500MB", "2GiB"]
    )
