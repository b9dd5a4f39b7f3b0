"""Digests of what lies outside the artifacts: source pictures and weights files.

KFP's cache keys hold the path of a source alone. With the digest of its content as a further parameter, a
changed source is read again, and an unchanged one is not.
"""

import hashlib
from pathlib import Path
from typing import Any

from affectflow.artifacts import sha256_file
from affectflow.errors import DataError, SettingsError, what_got_wanted
from affectflow.s3 import S3Storage
from affectflow.storage import is_s3, local_file

#: Up to this size in all, a folder's files are read; above, their names, sizes and times of change stand for them.
READ_UP_TO_BYTES = 1 << 30

#: A path among the parameters → the parameter that holds its digest.
DIGEST_PARAMETERS = {
    "data_source": "data_source_digest",
    "train_weights": "train_weights_digest",
    "plan_weights_vggface2": "plan_weights_vggface2_digest",
    "plan_weights_imagenet": "plan_weights_imagenet_digest",
}


def add_digests(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with the digests of the sources and weights that they name.

    Raises:
        SettingsError: a named path does not exist.
        StorageError: a source or a file in S3 cannot be reached.
    """
    found = {}
    for name, digest_name in DIGEST_PARAMETERS.items():
        value = parameters.get(name, "")
        if name == "data_source" and is_s3(value):
            found[digest_name] = S3Storage(value).digest()
            continue
        if value in ("", "synthetic"):
            continue
        if is_s3(value):
            with local_file(value) as file:
                found[digest_name] = sha256_file(file)
            continue
        if "://" in value:
            continue
        path = Path(value)
        if not path.exists():
            raise SettingsError(
                what_got_wanted(f"--{name}", got=value, wanted="a path that exists", do="check its spelling")
            )
        found[digest_name] = folder_digest(path) if path.is_dir() else sha256_file(path)
    return {**parameters, **found}


def folder_digest(folder: Path) -> str:
    """Return a digest of the files in a folder that changes when one of them does.

    Links are not followed out of the folder. Small folders are read; large ones are judged by names, sizes and
    times of change, so that a touched file counts as changed.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise DataError(
            what_got_wanted(str(folder), got="no file", wanted="pictures and their lists", do="check the path")
        )
    states = [file.stat() for file in files]
    read = sum(state.st_size for state in states) <= READ_UP_TO_BYTES
    digest = hashlib.sha256()
    for file, state in zip(files, states, strict=True):
        content = sha256_file(file) if read else f"{state.st_size} {state.st_mtime_ns}"
        digest.update(f"{file.relative_to(folder)}\0{content}\n".encode())
    return digest.hexdigest()
