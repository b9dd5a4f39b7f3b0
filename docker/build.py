"""Build the images and name them: ``python docker/build.py``, or ``make images``.

Each gets a tag of version and git revision, ``affectflow-data:0.1.0-1a2b3c4d5e6f``, and the images of steps also
one for each step, which ends with the digest of that step's code: the names that compiled pipelines hold unless
``python -m pipelines.compile --tag`` says otherwise. Sizes are printed at the end.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from affectflow import __version__
from affectflow.command_line import OneLineParser
from affectflow.errors import USER_ERROR
from affectflow.progress import say
from components.images import REGISTRY_VARIABLE, TARGETS, image, image_name

ROOT = Path(__file__).resolve().parents[1]
_IMAGES = (*sorted(set(TARGETS.values())), "mlflow")


def main(argv: Sequence[str] | None = None) -> int:
    """Build what is asked for and return the exit code."""
    parser = OneLineParser(
        prog="python docker/build.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=_IMAGES, action="append", help="which image [default: all]")
    parser.add_argument("--registry", default="", help="where the images will be, e.g. registry.example.com/team")
    parser.add_argument("--tag", default="", help="[default: version and git revision]")
    parser.add_argument(
        "--base-image", default="", help="another base; Python 3.11 to 3.13 [default: Dockerfile's]"
    )
    parser.add_argument("--torch-index", default="", help="index of torch's CPU builds [default: torch with CUDA]")
    parser.add_argument("--network", default="", help="of the build's commands, e.g. host")
    parser.add_argument("--push", action="store_true", help="push every name to the registry")
    flags = parser.parse_args(argv)
    os.environ[REGISTRY_VARIABLE] = flags.registry
    revision = git_revision()
    tag = flags.tag or f"{__version__}-{revision}"
    arguments = {"VERSION": __version__, "REVISION": revision}
    arguments |= {"BASE_IMAGE": flags.base_image} if flags.base_image else {}
    arguments |= {"TORCH_INDEX": flags.torch_index} if flags.torch_index else {}
    options = [option for name, value in arguments.items() for option in ("--build-arg", f"{name}={value}")]
    options += ["--network", flags.network] if flags.network else []
    for target in flags.target or _IMAGES:
        names = names_of(target, tag)
        name_options = [option for name in names for option in ("--tag", name)]
        say(f"building {names[0]}")
        command = [
            "docker",
            "build",
            "--file",
            "docker/Dockerfile",
            "--target",
            target,
            *options,
            *name_options,
            ".",
        ]
        try:
            subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"})
            for name in names if flags.push else ():
                subprocess.run(["docker", "push", name], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"error: docker: got {error}, wanted a built image; mend what it says above", file=sys.stderr)
            return USER_ERROR
        say(f"built {names[0]}, {_size(names[0]) / 1e6:,.0f} MB")
        for name in names[1:]:
            say(f"also named {name}")
    return 0


def names_of(target: str, tag: str) -> list[str]:
    """Return all names of a target's image: by ``tag``, and by the code of each step that runs in it."""
    by_step = [image(step) for step, of in TARGETS.items() if of == target]
    return list(dict.fromkeys([image_name(target, tag), *by_step]))


def git_revision() -> str:
    """Return the checked-out revision, with ``-changed`` where files differ from it; ``unknown`` without git."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        return revision + ("-changed" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def _size(name: str) -> int:
    command = ["docker", "image", "inspect", "--format", "{{.Size}}", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    raise SystemExit(main())
