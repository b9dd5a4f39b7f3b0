"""What each step's pod asks of a cluster: cores, memory, accelerators, time, credentials, volumes, its user.

A pipeline calls :func:`on_cluster` once for each task. The local runner heeds none of it but the environment.
Names of Secrets and ConfigMaps are those of ``manifests/``; what they hold never stands in a pipeline.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.pipeline_channel import PipelineChannel
from kfp.dsl.structures import InputSpec

#: The user of the images; see ``docker/Dockerfile``.
IMAGE_USER = 10001

#: Where the volume is mounted whose claim ``--volume`` names when a pipeline is compiled: pictures, weights,
#: checkpoints.
VOLUME_PATH = "/mnt/affectflow"
VOLUME_VARIABLE = "AFFECTFLOW_VOLUME"

#: Fixed by KFP's MLflow plugin, which reads the same Secret.
MLFLOW_SECRET = "kfp-mlflow-credentials"  # noqa: S105 - the Secret's name
S3_SECRET = "affectflow-s3"  # noqa: S105 - the Secret's name
CONFIG_MAP = "affectflow"

_SHARED_MEMORY = "4Gi"
_SCRATCH = "20Gi"
_HOUR = 3600


@dataclass(frozen=True)
class Pod:
    """What a step's pod asks for.

    Attributes:
        cpu: cores that it is promised, as Kubernetes writes them; it may use more.
        memory: what it is promised, and may not exceed.
        hours: after which it is ended.
        trains: whether it runs a network: on accelerators, with loaders that share memory.
    """

    cpu: str
    memory: str
    hours: int
    trains: bool = False


PODS = MappingProxyType(
    {
        "ingest_affectnet": Pod(cpu="2", memory="8Gi", hours=48),
        "split_dataset": Pod(cpu="500m", memory="4Gi", hours=2),
        "compute_class_weights": Pod(cpu="500m", memory="2Gi", hours=1),
        "fine_tune": Pod(cpu="2", memory="16Gi", hours=7 * 24, trains=True),
        "evaluate": Pod(cpu="2", memory="16Gi", hours=12, trains=True),
        "plan_models": Pod(cpu="500m", memory="2Gi", hours=1),
        "compare_runs": Pod(cpu="1", memory="4Gi", hours=2),
    }
)

#: What a run's user may set, as the parameters ``pod_…``; the form of ``component_spec.inputs``.
POD_PARAMETERS: Mapping[str, InputSpec] = MappingProxyType(
    {
        name: InputSpec(kind, default=default, optional=True, description=description)
        for name, kind, default, description in (
            (
                "accelerator_type",
                "String",
                "nvidia.com/gpu",
                "Accelerator of the steps that train and evaluate, as the cluster's nodes name it.",
            ),
            (
                "accelerator_count",
                "Integer",
                0,
                "Accelerators of each of these steps; 0 for none. Set train_processes to 0 to use all.",
            ),
            ("train_cpu", "String", PODS["fine_tune"].cpu, "Cores promised to training, e.g. 8 or 500m."),
            (
                "train_memory",
                "String",
                PODS["fine_tune"].memory,
                "Memory of training, e.g. 32Gi; loaders' shared memory counts.",
            ),
        )
    }
)


def on_cluster(task: PipelineTask, step: str, settings: Mapping[str, Any]) -> None:
    """Give a task's pod what its step needs.

    Args:
        task: the task.
        step: the step that it runs.
        settings: what the run's user set; the keys of :data:`POD_PARAMETERS`.
    """
    pod = PODS[step]
    training = step == "fine_tune"
    if pod.trains:
        _hand_into_loop(task, settings)
    task.set_cpu_request(settings["train_cpu"] if training else pod.cpu)
    task.set_memory_request(settings["train_memory"] if training else pod.memory)
    task.set_memory_limit(settings["train_memory"] if training else pod.memory)
    if pod.trains:
        task.set_accelerator_type(settings["accelerator_type"])
        task.set_accelerator_limit(settings["accelerator_count"])
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=_SHARED_MEMORY)  # noqa: S108
    kubernetes.empty_dir_mount(task, "scratch", "/tmp", size_limit=_SCRATCH)  # noqa: S108 - so the root may be read-only
    kubernetes.set_timeout(task, pod.hours * _HOUR)
    kubernetes.set_security_context(task, run_as_user=IMAGE_USER, run_as_group=IMAGE_USER, run_as_non_root=True)
    if volume := os.environ.get(VOLUME_VARIABLE):
        kubernetes.mount_pvc(task, pvc_name=volume, mount_path=VOLUME_PATH)
    _find_servers(task)


def _hand_into_loop(task: PipelineTask, settings: Mapping[str, Any]) -> None:
    """Make the settings known in the loop that the task may stand in.

    KFP (2.17) hands into a loop only what one of its tasks takes as an input, and forgets what they ask of their
    pods: the loop would then look for parameters that it does not have, here and on a cluster.
    """
    task.channel_inputs.extend(value for value in settings.values() if isinstance(value, PipelineChannel))


def _find_servers(task: PipelineTask) -> None:
    """Tell the step where MLflow and S3 are, and how to enter.

    All are optional for Kubernetes, or a pod without its Secret would wait for ever. The step itself says at its
    start which is missing.
    """
    task.set_env_variable("AFFECTFLOW_TRACKING", "required")
    kubernetes.use_config_map_as_env(
        task,
        CONFIG_MAP,
        {
            "mlflow-tracking-uri": "MLFLOW_TRACKING_URI",
            "s3-endpoint": "AWS_ENDPOINT_URL_S3",
            "s3-region": "AWS_DEFAULT_REGION",
        },
        optional=True,
    )
    kubernetes.use_secret_as_env(
        task,
        MLFLOW_SECRET,
        {"username": "MLFLOW_TRACKING_USERNAME", "password": "MLFLOW_TRACKING_PASSWORD"},
        optional=True,
    )
    kubernetes.use_secret_as_env(
        task,
        S3_SECRET,
        {"access-key-id": "AWS_ACCESS_KEY_ID", "secret-access-key": "AWS_SECRET_ACCESS_KEY"},
        optional=True,
    )
