"""Which container image each step runs in: the one place that names them."""

import os
from types import MappingProxyType

from affectflow import __version__
from components.code_digest import code_digest

#: Step → target of ``docker/Dockerfile``. The data steps' image holds no torch.
TARGETS = MappingProxyType(
    {
        "ingest_affectnet": "data",
        "split_dataset": "data",
        "compute_class_weights": "data",
        "fine_tune": "torch",
        "fine_tune_distributed": "data",
        "evaluate": "torch",
        "plan_models": "data",
        "compare_runs": "data",
    }
)

#: Where images come from and how they are tagged; ``python -m pipelines.compile`` sets them from its flags.
REGISTRY_VARIABLE = "AFFECTFLOW_IMAGE_REGISTRY"
TAG_VARIABLE = "AFFECTFLOW_IMAGE_TAG"


def image(step: str) -> str:
    """Return the image name of a step, e.g. ``affectflow-data:0.1.0-1f0c…``.

    The tag ends with the digest of the code that the step can reach, never ``latest``: KFP's cache keys hold the
    image's name and know nothing of what is in it.
    """
    tag = os.environ.get(TAG_VARIABLE) or f"{__version__}-{code_digest(step)[:16]}"
    return image_name(TARGETS[step], tag)


def image_name(target: str, tag: str) -> str:
    """Return the name of a target's image in the registry that is set."""
    registry = os.environ.get(REGISTRY_VARIABLE, "").rstrip("/")
    return f"{registry + '/' if registry else ''}affectflow-{target}:{tag}"
