"""The digest of the code that a step can reach: what makes its cached results stale.

KFP's cache keys hold the image name, and not the code in the image. So this digest stands in the image's tag. It
is per step: an edit of the report's code reaches ``compare_runs`` alone, and trains nothing again.
"""

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

_OWN_PACKAGES = ("affectflow", "components")


@functools.cache
def code_digest(step: str) -> str:
    """Return the SHA-256 over all of our modules that ``components.<step>.step`` imports, directly or not.

    Imports are read from the source, those inside functions included; nothing is imported.
    """
    digest = hashlib.sha256()
    for name, path in sorted(reachable_modules(f"components.{step}.step").items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def reachable_modules(start: str) -> dict[str, Path]:
    """Return the modules of ours that ``start`` can reach, itself included, with their files."""
    found: dict[str, Path] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found or (path := _source_of(name)) is None:
            continue
        found[name] = path
        waiting += _imports_of(path)
        waiting += [name.rsplit(".", 1)[0]] if "." in name else []
    return found


def _imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import name`: the name may be a module or stand in the package's __init__.
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _source_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    if top not in _OWN_PACKAGES:
        return None
    base = _package_folder(top).joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


@functools.cache
def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations  # noqa: S101 (it is the package we stand in)
    return Path(spec.submodule_search_locations[0])
