"""The keys of ``backend_config``: what each means, its unit, its default, and which targets can honour it.

The documentation and ``docs/backend_config.schema.json`` are made from these models, so a key is described here, or in
``blocks.py``, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, field_validator

from mlflow_azure_backend.config.blocks import (
    ON_ALL,
    ON_CLUSTER,
    ON_CONTAINERS,
    ON_THIS_MACHINE,
    Block,
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
from mlflow_azure_backend.config.values import (
    ComputeName,
    Duration,
    EnvironmentReference,
    Line,
    PathText,
    SecretReference,
    VariableName,
    Written,
    refused,
)

if TYPE_CHECKING:
    from pydantic import ValidationInfo

TEXT_BRANCH: Final = "<text>"
"""The branch of a union that is written as text; as part of an error's place it is no key."""
OBJECT_BRANCH: Final = "<object>"
"""The branch of a union that is written as an object."""


def _branch(value: Any) -> str:
    return OBJECT_BRANCH if isinstance(value, Mapping | BaseModel) else TEXT_BRANCH


Compute = Annotated[
    Annotated[ComputeName, Tag(TEXT_BRANCH)] | Annotated[NewCompute, Tag(OBJECT_BRANCH)], Discriminator(_branch)
]
WorkspaceReference = Annotated[
    Annotated[PathText, Tag(TEXT_BRANCH)] | Annotated[Workspace, Tag(OBJECT_BRANCH)], Discriminator(_branch)
]
EnvironmentChoice = Annotated[
    Annotated[EnvironmentReference, Tag(TEXT_BRANCH)] | Annotated[Environment, Tag(OBJECT_BRANCH)],
    Discriminator(_branch),
]


def _retries(value: Any) -> Any:
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


class BackendConfig(Block):
    """What ``mlflow run --backend azureml`` takes as its ``backend_config``."""

    compute: Compute = Field(
        "local",
        description=(
            "Where to run: `local` (this machine), `docker` (a container on it), `serverless`, the name of an Azure ML"
            " compute, or an object that describes one to create."
        ),
        examples=["docker", "cpu-cluster", {"name": "cpu-cluster", "size": "Standard_DS3_v2", "max_instances": 4}],
        json_schema_extra=ON_ALL,
    )
    workspace: WorkspaceReference | None = Field(
        None,
        description=(
            "The Azure ML workspace, or the path of its `config.json`; null: the tracking URI if it is `azureml://`,"
            " else the nearest `config.json`, else the AZUREML_ARM_* variables."
        ),
        examples=[
            {"subscription_id": "00000000-0000-0000-0000-000000000000", "resource_group": "ml", "workspace_name": "dev"}
        ],
        json_schema_extra=ON_CLUSTER,
    )
    environment: EnvironmentChoice | None = Field(
        None,
        description=(
            "null: the project's own; `current`: this interpreter; `azureml:NAME@latest` or `azureml:NAME:VERSION`:"
            " one that is registered in the workspace; an object: the project's own, made differently."
        ),
        examples=["current", "azureml:sklearn-1.5@latest", {"channels": ["conda-forge"]}],
        json_schema_extra={**ON_ALL, "targets_of_values": {"current": ["local"], "azureml:": ["cluster"]}},
    )
    workdir: Literal["project", "snapshot"] = Field(
        "project",
        description="Run in the project's folder, or in a copy of its snapshot.",
        json_schema_extra={**ON_ALL, "targets_of_values": {"project": ["local"]}},
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="What the container or the job may use.",
        examples=[{"gpus": "all", "shm_size": "2g"}],
        json_schema_extra=ON_CONTAINERS,
    )
    distribution: Distribution | None = Field(
        None,
        description="Distributed training; null: one process.",
        examples=[{"type": "pytorch", "process_count_per_instance": 4}],
        json_schema_extra=ON_CLUSTER,
    )
    inputs: Mapping[VariableName, DataInput] = Field(
        default_factory=dict,
        description=(
            "Data to read, beyond what `path` and `uri` parameters of the project give; the job's variable"
            " AZURE_ML_INPUT_NAME says where it is."
        ),
        examples=[{"train": {"path": "azureml://datastores/workspaceblobstore/paths/train/", "type": "uri_folder"}}],
        json_schema_extra=ON_ALL,
    )
    outputs: Mapping[VariableName, DataOutput] = Field(
        default_factory=dict,
        description=(
            "Data to write, beyond the folder `outputs`, which is always collected; the job's variable"
            " AZURE_ML_OUTPUT_NAME says where to."
        ),
        examples=[{"model": {"type": "mlflow_model"}}],
        json_schema_extra=ON_ALL,
    )
    environment_variables: Mapping[VariableName, Written] = Field(
        default_factory=dict,
        description="Variables of the job. They are stored with the run: put no secret here.",
        examples=[{"OMP_NUM_THREADS": "4"}],
        json_schema_extra=ON_ALL,
    )
    secrets: Mapping[VariableName, SecretReference] = Field(
        default_factory=dict,
        description="Secret variables of the job, each by the client's variable that holds it; never the value.",
        examples=[{"HF_TOKEN": "env:HF_TOKEN"}],
        json_schema_extra=ON_THIS_MACHINE,
    )
    detach: bool = Field(
        False, description="Return once the job is submitted, and let it outlive the client.", json_schema_extra=ON_ALL
    )
    on_interrupt: Literal["detach", "cancel"] | None = Field(
        None,
        description=(
            "What Ctrl-C does; null: `cancel` on this machine and in docker, `detach` on a cluster (`cancel` there too"
            " when CI=true)."
        ),
        json_schema_extra=ON_ALL,
    )
    timeout: Duration | None = Field(
        None,
        description="Seconds that it may run; null: no limit.",
        examples=["2h", 5400],
        json_schema_extra=ON_ALL,
    )
    retry: Annotated[Retry | None, BeforeValidator(_retries)] = Field(
        None,
        description="Further attempts after a preemption, missing capacity or a service error; null: none.",
        examples=[2, {"max": 3, "on": ["preemption"]}],
        json_schema_extra=ON_CLUSTER,
    )
    queue_settings: QueueSettings | None = Field(
        None,
        description="How the job waits for compute.",
        examples=[{"job_tier": "spot"}],
        json_schema_extra=ON_CLUSTER,
    )
    identity: Identity | None = Field(
        None,
        description="As whom the job reads data; null: the compute's choice.",
        examples=[{"type": "managed"}],
        json_schema_extra=ON_CLUSTER,
    )
    services: Mapping[VariableName, Service] = Field(
        default_factory=dict,
        description="Ways into the running job.",
        examples=[{"lab": {"type": "jupyter_lab"}}],
        json_schema_extra=ON_CLUSTER,
    )
    display_name: Line | None = Field(
        None,
        description="Name in Azure ML studio; null: the run's name.",
        examples=["ridge, alpha 0.3"],
        json_schema_extra=ON_CLUSTER,
    )
    tags: Mapping[Line, Written] = Field(
        default_factory=dict, description="Tags of the run.", examples=[{"team": "vision"}], json_schema_extra=ON_ALL
    )
    snapshot: SnapshotRules = Field(
        default_factory=SnapshotRules,
        description="Which of the project's files are packaged.",
        examples=[{"exclude": ["data/"], "max_size": "1GB"}],
        json_schema_extra=ON_ALL,
    )
    submission_id: Line | None = Field(
        None,
        description="Your own key for this submission: the same key means the same job, however often it is sent.",
        examples=["nightly-2025-11-22"],
        json_schema_extra=ON_ALL,
    )
    profile: Line | None = Field(
        None,
        description="The profile of `mlflow-azure.yaml` to start from; null: none.",
        examples=["gpu"],
        json_schema_extra=ON_ALL,
    )

    @field_validator("workspace")
    @classmethod
    def _is_no_uri(cls, workspace: str | Workspace | None) -> str | Workspace | None:
        if isinstance(workspace, str) and "://" in workspace:
            raise refused("is an object or the path of a config.json; a URI belongs into the tracking URI")
        return workspace

    @field_validator("secrets")
    @classmethod
    def _are_no_plain_variables(cls, secrets: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        both = sorted(set(secrets) & set(info.data.get("environment_variables", {})))
        if both:
            raise refused(f"{', '.join(both)} cannot be in environment_variables too")
        return secrets

    @property
    def target(self) -> TargetName:
        """The kind of target that ``compute`` asks for; a project's ``docker_env`` may still ask for another."""
        if self.compute == "local":
            return "local"
        return "docker" if self.compute == "docker" else "cluster"


def json_schema() -> dict[str, Any]:
    """The JSON schema of a ``backend_config`` and of ``mlflow-azure.yaml``, which may hold ``profiles`` beside it.

    ``targets`` on a key lists the targets that can honour it; ``targets_of_values`` narrows that for values that
    begin so. Both are words of ours, which validators ignore.
    """
    schema = BackendConfig.model_json_schema()
    for key in schema["properties"].values():
        if "patternProperties" in key:
            key["additionalProperties"] = False
    # Pydantic 2.9 cannot be told that a validator takes more than the type says (json_schema_input_type fails there).
    schema["properties"]["retry"]["anyOf"].insert(0, {"type": "integer", "minimum": 0})
    schema["properties"]["profiles"] = {
        "title": "Profiles",
        "description": "Only in mlflow-azure.yaml: named sets of the other keys, chosen by `profile`.",
        "type": "object",
        "additionalProperties": {"type": "object"},
        "examples": [{"gpu": {"compute": "gpu-cluster"}}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "backend_config"}
