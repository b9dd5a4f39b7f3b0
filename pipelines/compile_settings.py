"""What is settled when a pipeline is compiled: where its images are, and which volume its pods mount.

Components and pipelines read these from the environment when they are imported, so set them first.
"""

import argparse
import os

from components.images import REGISTRY_VARIABLE, TAG_VARIABLE
from pipelines.pod_settings import VOLUME_PATH, VOLUME_VARIABLE


def compile_flags() -> argparse.ArgumentParser:
    """Return a parser of these flags, to be used as another one's parent."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--registry", default="", help="where the images are, e.g. registry.example.com/team")
    parser.add_argument("--tag", default="", help="the images' tag [default: version and digest of a step's code]")
    parser.add_argument(
        "--volume", default="", help=f"claim of a volume that every pod mounts at {VOLUME_PATH} [default: none]"
    )
    return parser


def set_compile_settings(flags: argparse.Namespace) -> None:
    """Set what was given; what was not keeps what the environment says."""
    given = {REGISTRY_VARIABLE: flags.registry, TAG_VARIABLE: flags.tag, VOLUME_VARIABLE: flags.volume}
    os.environ.update({variable: value for variable, value in given.items() if value})
