"""What requests to Resource Manager may hold, written down from Microsoft's specification.

From ``Microsoft.MachineLearningServices`` as the generated clients carry it: azure-mgmt-machinelearningservices 2.0.0b2
(specification 2023-04-01), which a test holds these against, and azure-ai-ml 1.35 (2025-12-01). Keys
of later or preview versions are taken where published clients send them; the test lists them.
"""

from __future__ import annotations

from mlflow_azure_backend.emulator.shapes import ANYTHING, ListOf, MapOf, Plain, Record, Text

TEXT = Text()
FLAG = Plain(bool)
COUNT = Plain(int)
TEXTS = MapOf(Text(scalars=True))
"""Azure takes numbers here and answers with text: azure-ai-ml sends ``hash_version`` as one (recording test_code)."""
_NOT_EMPTY = Text(pattern=r"[a-zA-Z0-9_]")
_DURATION = Text(pattern=r"^P")
_RESOURCE = {"id": TEXT, "name": TEXT, "type": TEXT, "systemData": ANYTHING}
_ASSET = {"description": TEXT, "properties": TEXTS, "tags": TEXTS, "isArchived": FLAG, "isAnonymous": FLAG}
_STORED = {**_ASSET, "autoDeleteSetting": ANYTHING, "provisioningState": TEXT, "stage": TEXT}
_MANAGED_IDENTITY = Record(
    {
        "type": Text(("None", "SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned")),
        "userAssignedIdentities": ANYTHING,
        "principalId": TEXT,
        "tenantId": TEXT,
    },
    required=("type",),
)
_SKU = Record({"name": TEXT, "tier": TEXT, "size": TEXT, "family": TEXT, "capacity": COUNT}, required=("name",))


def _resource(properties: Record) -> Record:
    return Record({**_RESOURCE, "properties": properties}, required=("properties",))


_URI_TYPES = ("uri_file", "uri_folder", "mltable", "custom_model", "mlflow_model", "triton_model")
_URI_INPUT = Record(
    {
        "description": TEXT,
        "uri": _NOT_EMPTY,
        "mode": Text(("ReadOnlyMount", "ReadWriteMount", "Download", "Direct", "EvalMount", "EvalDownload")),
        "pathOnCompute": TEXT,
    },
    required=("uri",),
)
_INPUT = Record(
    {},
    by="jobInputType",
    variants={
        "literal": Record({"description": TEXT, "value": Text(pattern=r"(?s)^.")}, required=("value",)),
        **dict.fromkeys(_URI_TYPES, _URI_INPUT),
    },
)
_OUTPUT = Record(
    {},
    by="jobOutputType",
    variants=dict.fromkeys(
        _URI_TYPES,
        Record(
            {
                "description": TEXT,
                "uri": TEXT,
                "mode": Text(("ReadWriteMount", "Upload", "Direct")),
                "assetName": TEXT,
                "assetVersion": TEXT,
                "autoDeleteSetting": ANYTHING,
                "pathOnCompute": TEXT,
            }
        ),
    ),
)
_SERVICE = Record(
    {
        "jobServiceType": TEXT,
        "endpoint": TEXT,
        "port": COUNT,
        "properties": TEXTS,
        "nodes": Record({}, by="nodesValueType", variants={"All": Record({})}),
        "status": TEXT,
        "errorMessage": TEXT,
    }
)
_DISTRIBUTION = Record(
    {},
    by="distributionType",
    variants={
        "PyTorch": Record({"processCountPerInstance": COUNT}),
        "Mpi": Record({"processCountPerInstance": COUNT}),
        "TensorFlow": Record({"parameterServerCount": COUNT, "workerCount": COUNT}),
    },
)
_RESOURCES = Record(
    {
        "instanceCount": COUNT,
        "instanceType": TEXT,
        "properties": MapOf(ANYTHING),
        "shmSize": Text(pattern=r"^\d+[bBkKmMgG]$"),
        "dockerArgs": TEXT,
        "dockerArgsList": ListOf(TEXT),
    }
)
_IDENTITY = Record(
    {},
    by="identityType",
    variants={
        "AMLToken": Record({}),
        "UserIdentity": Record({}),
        "Managed": Record({"clientId": TEXT, "objectId": TEXT, "resourceId": TEXT}),
    },
)
_COMMAND = Record(
    {
        "command": _NOT_EMPTY,
        "environmentId": _NOT_EMPTY,
        "codeId": TEXT,
        "environmentVariables": TEXTS,
        "inputs": MapOf(_INPUT),
        "outputs": MapOf(_OUTPUT),
        "distribution": _DISTRIBUTION,
        "resources": _RESOURCES,
        "limits": Record({"jobLimitsType": Text(("Command",)), "timeout": _DURATION}, required=("jobLimitsType",)),
        "queueSettings": Record({"jobTier": Text(("Null", "Spot", "Basic", "Standard", "Premium")), "priority": COUNT}),
        "parameters": ANYTHING,
        "autologgerSettings": ANYTHING,
    },
    required=("command", "environmentId"),
)
JOB = _resource(
    Record(
        {
            "description": TEXT,
            "properties": TEXTS,
            "tags": TEXTS,
            "componentId": TEXT,
            "computeId": TEXT,
            "displayName": TEXT,
            "experimentName": TEXT,
            "identity": _IDENTITY,
            "isArchived": FLAG,
            "notificationSetting": ANYTHING,
            "services": MapOf(_SERVICE),
            "status": TEXT,
            "parentJobName": TEXT,
        },
        by="jobType",
        variants={"Command": _COMMAND},
    )
)
"""``Jobs_CreateOrUpdate``, for command jobs."""

CODE_VERSION = _resource(Record({**_STORED, "codeUri": TEXT}))
"""``CodeVersions_CreateOrUpdate``."""

PENDING_UPLOAD = Record({"pendingUploadId": TEXT, "pendingUploadType": Text(("None", "TemporaryBlobReference"))})
"""``CodeVersions_CreateOrGetStartPendingUpload`` and its like."""

ENVIRONMENT_VERSION = _resource(
    Record(
        {
            **_STORED,
            "autoRebuild": Text(("Disabled", "OnBaseImageUpdate")),
            "build": Record({"contextUri": _NOT_EMPTY, "dockerfilePath": TEXT}, required=("contextUri",)),
            "condaFile": TEXT,
            "environmentType": TEXT,
            "image": TEXT,
            "inferenceConfig": ANYTHING,
            "osType": Text(("Linux", "Windows")),
        }
    )
)
"""``EnvironmentVersions_CreateOrUpdate``."""

MODEL_VERSION = _resource(
    Record(
        {
            **_STORED,
            "flavors": MapOf(Record({"data": TEXTS})),
            "jobName": TEXT,
            "modelType": TEXT,
            "modelUri": TEXT,
            "datasets": ANYTHING,
        }
    )
)
"""``ModelVersions_CreateOrUpdate``."""

DATA_VERSION = _resource(
    Record(
        {**_ASSET, "autoDeleteSetting": ANYTHING, "stage": TEXT, "dataUri": _NOT_EMPTY},
        required=("dataUri",),
        by="dataType",
        variants={
            "uri_file": Record({}),
            "uri_folder": Record({}),
            "mltable": Record({"referencedUris": ListOf(TEXT)}),
        },
    )
)
"""``DataVersions_CreateOrUpdate``."""

_SCALE = Record(
    {"minNodeCount": COUNT, "maxNodeCount": COUNT, "nodeIdleTimeBeforeScaleDown": _DURATION}, required=("maxNodeCount",)
)
_AML_COMPUTE = Record(
    {
        "osType": Text(("Linux", "Windows")),
        "vmSize": TEXT,
        "vmPriority": Text(("Dedicated", "LowPriority")),
        "virtualMachineImage": ANYTHING,
        "isolatedNetwork": FLAG,
        "scaleSettings": _SCALE,
        "userAccountCredentials": ANYTHING,
        "subnet": ANYTHING,
        "remoteLoginPortPublicAccess": Text(("Enabled", "Disabled", "NotSpecified")),
        "allocationState": TEXT,
        "allocationStateTransitionTime": TEXT,
        "errors": ANYTHING,
        "currentNodeCount": COUNT,
        "targetNodeCount": COUNT,
        "nodeStateCounts": ANYTHING,
        "enableNodePublicIp": FLAG,
        "propertyBag": ANYTHING,
    }
)
_COMPUTE = Record(
    {
        "computeLocation": TEXT,
        "provisioningState": TEXT,
        "description": TEXT,
        "createdOn": TEXT,
        "modifiedOn": TEXT,
        "resourceId": TEXT,
        "provisioningErrors": ANYTHING,
        "isAttachedCompute": FLAG,
        "disableLocalAuth": FLAG,
    },
    by="computeType",
    variants={"AmlCompute": Record({"properties": _AML_COMPUTE})},
)
COMPUTE = Record(
    {
        **_RESOURCE,
        "properties": _COMPUTE,
        "location": TEXT,
        "tags": TEXTS,
        "identity": _MANAGED_IDENTITY,
        "sku": _SKU,
    }
)
"""``Compute_CreateOrUpdate``, for clusters."""

CLUSTER_UPDATE = Record({"properties": Record({"properties": Record({"scaleSettings": _SCALE})})})
"""``Compute_Update``."""

SECRET_EXPIRY = Record({"expirableSecret": FLAG, "expireAfterHours": COUNT})
"""``Datastores_ListSecrets``, from 2024-04-01-preview on; before that it had no body."""

_PROBE = Record(
    {
        "failureThreshold": COUNT,
        "initialDelay": _DURATION,
        "period": _DURATION,
        "successThreshold": COUNT,
        "timeout": _DURATION,
    }
)
_TRACKED = {
    "location": TEXT,
    "tags": TEXTS,
    "kind": TEXT,
    "identity": _MANAGED_IDENTITY,
    "sku": _SKU,
}
ONLINE_ENDPOINT = Record(
    {
        **_RESOURCE,
        **_TRACKED,
        "properties": Record(
            {
                "authMode": Text(("AMLToken", "Key", "AADToken")),
                "description": TEXT,
                "keys": Record({"primaryKey": TEXT, "secondaryKey": TEXT}),
                "properties": TEXTS,
                "scoringUri": TEXT,
                "swaggerUri": TEXT,
                "compute": TEXT,
                "mirrorTraffic": MapOf(COUNT),
                "provisioningState": TEXT,
                "publicNetworkAccess": Text(("Enabled", "Disabled")),
                "traffic": MapOf(COUNT),
            },
            required=("authMode",),
        ),
    },
    required=("properties", "location"),
)
"""``OnlineEndpoints_CreateOrUpdate``."""

ONLINE_DEPLOYMENT = Record(
    {
        **_RESOURCE,
        **_TRACKED,
        "properties": Record(
            {
                "codeConfiguration": Record({"codeId": TEXT, "scoringScript": _NOT_EMPTY}, required=("scoringScript",)),
                "description": TEXT,
                "environmentId": TEXT,
                "environmentVariables": TEXTS,
                "properties": TEXTS,
                "appInsightsEnabled": FLAG,
                "dataCollector": ANYTHING,
                "egressPublicNetworkAccess": Text(("Enabled", "Disabled")),
                "instanceType": TEXT,
                "livenessProbe": _PROBE,
                "model": TEXT,
                "modelMountPath": TEXT,
                "provisioningState": TEXT,
                "readinessProbe": _PROBE,
                "startupProbe": _PROBE,
                "requestSettings": Record(
                    {"maxConcurrentRequestsPerInstance": COUNT, "maxQueueWait": _DURATION, "requestTimeout": _DURATION}
                ),
                "scaleSettings": Record({}, by="scaleType", variants={"Default": Record({})}),
            },
            by="endpointComputeType",
            variants={"Managed": Record({})},
        ),
    },
    required=("properties", "location"),
)
"""``OnlineDeployments_CreateOrUpdate``, for managed ones."""
