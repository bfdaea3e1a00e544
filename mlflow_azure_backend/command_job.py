"""A command job as Azure ML knows it: as ``az ml job create -f`` reads it, and as its REST API takes it.

Names and words are those of https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-command and of the
REST API's version 2024-10-01; a test holds the body against what azure-ai-ml sends for the same YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mlflow_azure_backend.config import BackendConfig

SERVERLESS: Final = "serverless"
_SCHEMA: Final = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
_INPUT_MODES: Final = {"ro_mount": "ReadOnlyMount", "download": "Download", "direct": "Direct"}
_OUTPUT_MODES: Final = {"rw_mount": "ReadWriteMount", "upload": "Upload", "direct": "Direct"}
_DISTRIBUTIONS: Final = {"pytorch": "PyTorch", "mpi": "Mpi", "tensorflow": "TensorFlow"}
_TIERS: Final = {"spot": "Spot", "basic": "Basic", "standard": "Standard", "premium": "Premium"}
_PRIORITIES: Final = {"low": 1, "medium": 2, "high": 3}
_IDENTITIES: Final = {"managed": "Managed", "user_identity": "UserIdentity", "aml_token": "AMLToken"}
_SERVICES: Final = {
    "ssh": "SSH",
    "jupyter_lab": "JupyterLab",
    "vs_code": "VSCode",
    "tensor_board": "TensorBoard",
}
_SERVICE_PROPERTIES: Final = {"ssh_public_keys": "sshPublicKeys", "log_dir": "logDir"}


@dataclass(frozen=True, slots=True)
class JobData:
    """An input or an output of a job.

    Attributes:
        type: In Azure ML's words, like ``uri_folder``.
        uri: Where it is or goes; None lets the service choose (outputs only).
        mode: How a node gets it or brings it there; None: the service's default, mounted.
    """

    type: str
    uri: str | None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class CommandJob:
    """One command job, complete but for its name.

    Attributes:
        command: What each node runs.
        code: ARM id of the code version; for ``plan``, the folder.
        environment: ARM id of the environment version, or its name as ``az ml`` writes it.
        experiment_name: The experiment's name.
        display_name: What people read in the studio.
        compute: Name of the compute, or ``serverless``.
        config: What the user asked for; the blocks of ``az ml`` are taken from it as they are.
        inputs: By name.
        outputs: By name, beside the one that the service adds.
        environment_variables: Of the job; readable by everybody who may see it.
        tags: Of the job, and so of its run.
    """

    command: str
    code: str
    environment: str
    experiment_name: str
    display_name: str | None
    compute: str
    config: BackendConfig
    inputs: Mapping[str, JobData] = field(default_factory=dict)
    outputs: Mapping[str, JobData] = field(default_factory=dict)
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def for_az(self, name: str | None = None) -> dict[str, Any]:
        """As ``az ml job create -f`` reads it."""
        config, serverless = self.config, self.compute == SERVERLESS
        resources = _given(
            instance_count=_instances(config),
            instance_type=config.resources.instance_type,
            shm_size=_shm(config),
            docker_args=" ".join(config.resources.docker_args) or None,
        )
        return _given(
            **{"$schema": _SCHEMA},
            type="command",
            name=name,
            display_name=self.display_name,
            experiment_name=self.experiment_name or None,
            command=self.command,
            code=self.code,
            environment=self.environment,
            compute=None if serverless else f"azureml:{self.compute}",
            inputs={key: _given(type=one.type, path=one.uri, mode=one.mode) for key, one in self.inputs.items()},
            outputs={key: _given(type=one.type, path=one.uri, mode=one.mode) for key, one in self.outputs.items()},
            environment_variables=dict(self.environment_variables),
            resources=resources,
            distribution=_dump(config.distribution),
            limits=None if config.timeout is None else {"timeout": _seconds(config)},
            queue_settings=_dump(config.queue_settings),
            identity=_dump(config.identity),
            services={key: _dump(one) for key, one in config.services.items()},
            tags=dict(self.tags),
        )

    def for_rest(self, workspace: str) -> dict[str, Any]:
        """As the body of ``PUT {workspace}/jobs/NAME``; ``workspace`` is the workspace's ARM id."""
        config = self.config
        compute = None if self.compute == SERVERLESS else f"{workspace}/computes/{self.compute}"
        properties = _given(
            jobType="Command",
            displayName=self.display_name,
            experimentName=self.experiment_name,
            command=self.command,
            codeId=self.code,
            environmentId=self.environment,
            computeId=compute,
            inputs={key: _data(one, "jobInputType", _INPUT_MODES) for key, one in self.inputs.items()},
            outputs={key: _data(one, "jobOutputType", _OUTPUT_MODES) for key, one in self.outputs.items()},
            environmentVariables=dict(self.environment_variables),
            resources=_given(
                instanceCount=_instances(config),
                instanceType=config.resources.instance_type,
                shmSize=_shm(config),
                dockerArgs=" ".join(config.resources.docker_args) or None,
            ),
            distribution=_distribution(config),
            limits=_given(jobLimitsType="Command", timeout=f"PT{_seconds(config)}S") if config.timeout else None,
            queueSettings=_queue_settings(config),
            identity=_identity(config),
            services=_services(config),
            tags=dict(self.tags),
        )
        return {"properties": properties}


def _given(**values: Any) -> dict[str, Any]:
    """Without what is None or empty."""
    return {key: value for key, value in values.items() if value is not None and value != {}}


def _data(data: JobData, kind: str, modes: Mapping[str, str]) -> dict[str, Any]:
    mode = None if data.mode is None else modes[data.mode]
    return _given(**{kind: data.type}, uri=data.uri, mode=mode)


def _dump(block: Any) -> dict[str, Any] | None:
    return None if block is None else _given(**block.model_dump(mode="json", exclude_none=True))


def _instances(config: BackendConfig) -> int | None:
    """None when the user names no number: the service's own default is one node."""
    return config.resources.instance_count if "instance_count" in config.resources.model_fields_set else None


def _shm(config: BackendConfig) -> str | None:
    """In the service's form: a whole number and one letter."""
    size = config.resources.shm_size
    if size is None:
        return None
    number, letters = int(size), "bkmg"
    while number % 1024 == 0 and len(letters) > 1:
        number, letters = number // 1024, letters[1:]
    return f"{number}{letters[0]}"


def _seconds(config: BackendConfig) -> int:
    """The service counts in whole seconds."""
    return max(1, round(config.timeout or 0))


def _distribution(config: BackendConfig) -> dict[str, Any] | None:
    asked = config.distribution
    if asked is None:
        return None
    counts: dict[str, int | None] = {"processCountPerInstance": asked.process_count_per_instance}
    if asked.type == "tensorflow":
        counts = {
            "workerCount": asked.worker_count or config.resources.instance_count,
            "parameterServerCount": asked.parameter_server_count,
        }
    return _given(distributionType=_DISTRIBUTIONS[asked.type], **counts)


def _queue_settings(config: BackendConfig) -> dict[str, Any] | None:
    asked = config.queue_settings
    if asked is None:
        return None
    return _given(
        jobTier=None if asked.job_tier is None else _TIERS[asked.job_tier],
        priority=None if asked.priority is None else _PRIORITIES[asked.priority],
    )


def _identity(config: BackendConfig) -> dict[str, Any] | None:
    asked = config.identity
    if asked is None:
        return None
    return _given(
        identityType=_IDENTITIES[asked.type],
        clientId=asked.client_id,
        objectId=asked.object_id,
        resourceId=asked.msi_resource_id,
    )


def _services(config: BackendConfig) -> dict[str, Any]:
    return {
        name: _given(
            jobServiceType=_SERVICES[asked.type],
            port=asked.port,
            nodes=None if asked.nodes is None else {"nodesValueType": "All"},
            properties={
                **asked.properties,
                **_given(**{key: getattr(asked, ours) for ours, key in _SERVICE_PROPERTIES.items()}),
            },
        )
        for name, asked in config.services.items()
    }
