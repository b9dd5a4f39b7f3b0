"""Python, installed packages, torch and its GPU, memory and disk of this machine."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from affectflow.doctor.check import Finding

GIB = 1 << 30

#: AffectNet's faces as this project stores them (256 px, JPEG), its checkpoints and its runs, with some room.
DISK_WANTED = 20 * GIB
#: Below this, not even the demo fits.
DISK_NEEDED = 1 * GIB
#: What the processes that load images pass their batches through; containers often have 64 MiB.
SHARED_MEMORY_WANTED = 1 * GIB
MEMORY_WANTED = 8 * GIB

_TORCH_EXTRA = "torch"


def check_python() -> Iterator[Finding]:
    """Compare the interpreter with the versions that the package allows."""
    from packaging.specifiers import SpecifierSet

    wanted = str(metadata.metadata("affectflow")["Requires-Python"])
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield Finding("Python", "ok", version)
    else:
        yield Finding(
            "Python",
            "bad",
            f"{version}, wanted {wanted}",
            "make the environment with one of these",
        )


def check_packages() -> Iterator[Finding]:
    """Compare what is installed with what the package requires, the extra ``torch`` included."""
    from packaging.requirements import Requirement

    missing, wrong, fine = [], [], 0
    for line in metadata.requires("affectflow") or []:
        required = Requirement(line)
        if required.marker and not required.marker.evaluate({"extra": _TORCH_EXTRA}):
            continue
        try:
            version = metadata.version(required.name)
        except metadata.PackageNotFoundError:
            missing.append(required.name)
            continue
        if required.specifier.contains(version, prereleases=True):
            fine += 1
        else:
            wrong.append(f"{required.name} {version} (wanted {required.specifier})")
    if missing or wrong:
        parts = {"missing": missing, "wrong": wrong}
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)
        yield Finding("packages", "bad", found, "pip install -c constraints.txt -e '.[torch]'")
    else:
        yield Finding("packages", "ok", f"{fine} of {fine} as required")


def check_torch() -> Iterator[Finding]:
    """Multiply on the CPU and on each GPU; name a GPU that the driver sees and torch does not."""
    try:
        import torch
    except ImportError as error:
        yield Finding(
            "torch", "bad", f"cannot be imported ({error})", "pip install -c constraints.txt -e '.[torch]'"
        )
        return
    ones = torch.ones(64, 64)
    if float((ones @ ones).sum()) != 64.0**3:
        yield Finding("torch", "bad", f"{torch.__version__} multiplies wrongly", "install it again")
        return
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    yield from _check_gpus()


def _check_gpus() -> Iterator[Finding]:
    import torch

    driver = _gpus_of_driver()
    if not torch.cuda.is_available():
        if driver:
            yield Finding(
                "GPU",
                "bad",
                f"the driver sees {', '.join(driver)}, torch {torch.__version__} does not",
                f"install a driver for CUDA {torch.version.cuda} or later"
                if torch.version.cuda
                else "install a torch with CUDA: this one is for CPUs alone",
            )
        else:
            yield Finding(
                "GPU",
                "note",
                "none: training runs on the CPU",
                "use a machine with one for AffectNet; the demo does not need it",
            )
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        works = float((ones @ ones).sum()) == 64.0**3
        name = f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
        yield Finding(f"GPU {index}", "ok" if works else "bad", name, "" if works else "leave this device out")


def _gpus_of_driver() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    return [line.strip() for line in asked.stdout.splitlines() if line.strip()] if asked.returncode == 0 else []


def check_memory() -> Iterator[Finding]:
    """Look at main memory and at the shared memory through which loading processes pass their batches."""
    import psutil

    total = psutil.virtual_memory().total
    found = f"{total / GIB:.1f} GiB, {len(os.sched_getaffinity(0))} cores"
    if total < MEMORY_WANTED:
        yield Finding("memory", "note", found, "pass a smaller --batch-size and --workers")
    else:
        yield Finding("memory", "ok", found)
    shared = Path("/dev/shm")  # noqa: S108 - looked at, not written to
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        found = f"{free / GIB:.2f} GiB free in {shared}"
        if free < SHARED_MEMORY_WANTED:
            mend = "mount more there (docker --shm-size, an emptyDir of medium Memory), or pass --workers 1"
            yield Finding("shared memory", "note", found, mend)
        else:
            yield Finding("shared memory", "ok", found)


def check_disk(work: Path) -> Iterator[Finding]:
    """Look at the free space where runs are kept, and whether it can be written to."""
    folder = next(path for path in (work.absolute(), *work.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free for {work}"
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "bad", f"{folder} cannot be written to", "pass another --work, or change its owner")
    elif free < DISK_NEEDED:
        yield Finding("disk", "bad", found, "free some, or pass a --work on another disk")
    elif free < DISK_WANTED:
        mend = f"enough for the demo; AffectNet and 20 models want {DISK_WANTED // GIB} GiB"
        yield Finding("disk", "note", found, mend)
    else:
        yield Finding("disk", "ok", found)
