"""Say whether an image can run steps: the images' default command and health check.

``python -m components.health`` in an image, with ``torch`` in the one that trains.
"""

import importlib
import os
import platform
import sys
import tempfile

from affectflow import __version__
from affectflow.errors import USER_ERROR, AffectflowError, what_got_wanted
from affectflow.progress import say

_LIBRARIES = ("kfp", "mlflow", "numpy", "pyarrow")


def main() -> int:
    """Print versions and devices and return 0, or 2 where something that steps need is missing."""
    try:
        _check_scratch_space()
        say(f"affectflow {__version__}, Python {platform.python_version()}, user {os.getuid()}")
        say(", ".join(f"{name} {importlib.import_module(name).__version__}" for name in _LIBRARIES))
        if "torch" in sys.argv[1:]:
            import torch

            gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
            say(f"torch {torch.__version__}, GPUs: {', '.join(gpus) or 'none'}")
    except AffectflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def _check_scratch_space() -> None:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    except OSError as error:
        raise AffectflowError(
            what_got_wanted(
                "/tmp",  # noqa: S108 - the images' own place for it
                got=error.strerror or "no folder that can be written",
                wanted="scratch space",
                do="mount an emptyDir or a tmpfs at /tmp",
            )
        ) from None


if __name__ == "__main__":
    raise SystemExit(main())
