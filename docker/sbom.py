"""Write a software bill of materials for each image: ``python docker/sbom.py FOLDER`` (CycloneDX, JSON).

It lists the Python packages that an image installs, with the versions of ``constraints.txt``; what an image takes
from its base is the base's own to list.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
#: Image → the extras of our own package that it installs.
IMAGES = {"data": (), "torch": ("torch",), "mlflow": ("server",)}


def pinned() -> dict[str, str]:
    """Return the line of every package in ``constraints.txt``, by its name."""
    lines = (line.partition(" ;")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if "==" in line}


def installed_by(extras: tuple[str, ...]) -> set[str]:
    """Return the names of all packages that our own needs with these extras, directly or by others."""
    found: set[str] = set()
    waiting = [("affectflow", frozenset(extras))]
    seen = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
        for line in lines:
            requirement = Requirement(line)
            environments = [default_environment() | {"extra": extra} for extra in (*wanted, "")]
            if requirement.marker is None or any(requirement.marker.evaluate(one) for one in environments):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return found - {"affectflow"}


def main() -> None:
    """Write ``sbom-IMAGE.json`` for every image into the folder."""
    out, versions = Path(sys.argv[1]), pinned()
    out.mkdir(parents=True, exist_ok=True)
    for image, extras in IMAGES.items():
        names = sorted(name for name in installed_by(extras) if name in versions)
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write("\n".join(versions[name] for name in names) + "\n")
            requirements.flush()
            file = out / f"sbom-{image}.json"
            command = [sys.executable, "-m", "cyclonedx_py", "requirements", requirements.name]
            command += ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "-o", str(file)]
            subprocess.run(command, check=True)
        print(f"{file}: {len(names)} packages")


if __name__ == "__main__":
    main()
