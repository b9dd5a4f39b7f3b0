"""Print, and with ``--run`` execute, the command that made a model: ``python -m affectflow.reproduce RUN_ID``.

The run is the id of an MLflow run, or the folder of a ``model/`` artifact. Everything that decides the result
stands in ``model.json``: settings, seed, the digests of its inputs, the versions of libraries and code. With
``--run`` the inputs that are named must have these digests, and the new model is compared with the old one byte
for byte.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from affectflow.artifacts import artifact_digest, open_artifact, read_header, sha256_file
from affectflow.command_line import OneLineParser
from affectflow.errors import USER_ERROR, AffectflowError, ArtifactError, what_got_wanted
from affectflow.headers import ModelHeader, check_header
from affectflow.progress import report_error, say, warn
from affectflow.storage import local_file

_INPUTS = ("faces", "splits", "class_weights")
#: Settings of ``model.json`` that are no flags: what a flag of another name was resolved to.
_RESOLVED = {"frozen_stages": "freeze_stages"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit code 2 where something must be mended, or the new model differs."""
    parser = OneLineParser(
        prog="python -m affectflow.reproduce",
        usage="python -m affectflow.reproduce RUN_ID [--run --faces DIR --splits DIR --class-weights DIR "
        "--output-dir DIR]",
        description=__doc__,
    )
    parser.add_argument("run_id", metavar="RUN_ID", help="Id of an MLflow run, or the folder of a model.")
    for name in _INPUTS:
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, metavar="DIR", default="", help=f"Folder of the {name} artifact.")
    parser.add_argument(
        "--weights", metavar="FILE", default="", help="The pre-trained weights, where there were some."
    )
    parser.add_argument("--output-dir", metavar="DIR", default="", help="Where the new model is written.")
    parser.add_argument("--run", action="store_true", help="Train again and compare.")
    chosen = parser.parse_args(arguments)
    try:
        header = find_header(chosen.run_id)
        given = {name: getattr(chosen, name) for name in (*_INPUTS, "weights") if getattr(chosen, name)}
        out = chosen.output_dir or "out/reproduced"
        command = training_command(header, given, out)
        _describe(header, command)
        if chosen.run:
            _check_inputs(header, given)
            _train_and_compare(header, command, Path(out))
    except AffectflowError as error:
        report_error(str(error))
        raise SystemExit(USER_ERROR) from None


def find_header(run_id: str) -> dict[str, Any]:
    """Return the ``model.json`` of a run, or of a model's folder.

    Raises:
        AffectflowError: there is none, or it is not whole.
    """
    folder = Path(run_id)
    if folder.is_dir():
        model = folder / "model" if (folder / "model").is_dir() else folder
        header = open_artifact(model, "model")
        check_header(model, "model", header, ModelHeader)
        return header
    from affectflow.tracked_models import download_file

    with tempfile.TemporaryDirectory() as temporary:
        download_file(run_id, "training/model.json", Path(temporary))
        header = read_header(temporary, "model")
    check_header(f"run {run_id}", "model", header, ModelHeader)
    return header


def training_command(header: dict[str, Any], inputs: dict[str, str], output_dir: str) -> list[str]:
    """Return the command of ``fine_tune`` that makes a model again; inputs that are not given are placeholders."""
    flags: list[str] = []
    for name in _INPUTS:
        flags += ["--" + name.replace("_", "-"), inputs.get(name, f"{name.upper()}_FOLDER")]
    if header["inputs"].get("weights"):
        flags += ["--weights", inputs.get("weights", "WEIGHTS_FILE"), "--pretrained", header["pretrained"]]
    if header["row"]:
        flags += ["--row", str(header["row"])]
    for name, value in header["settings"].items():
        flag = "--" + _RESOLVED.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags += [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    return [sys.executable, "-m", "components.fine_tune", *flags, "--output-dir", output_dir]


def _describe(header: dict[str, Any], command: list[str]) -> None:
    for name, digest in header["inputs"].items():
        if digest:
            say(f"{name}: SHA-256 {digest}")
    for name, made_with in header.get("versions", {}).items():
        here = _version_here(name)
        say(f"{name}: {made_with}" + (f" (here: {here})" if here not in (made_with, "") else ""))
    threads = f"OMP_NUM_THREADS={header['cpu_threads']} " if header.get("cpu_threads") else ""
    say(threads + shlex.join(["python", *command[1:]]))


def _version_here(name: str) -> str:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _weights_digest(address: str) -> str:
    with local_file(address) as file:
        return sha256_file(file)


def _check_inputs(header: dict[str, Any], given: dict[str, str]) -> None:
    needed = [*_INPUTS, *(["weights"] if header["inputs"].get("weights") else [])]
    for name in needed:
        if name not in given:
            flag = "--" + name.replace("_", "-")
            line = what_got_wanted(flag, got="nothing", wanted="what the model was trained with", do="pass it")
            raise ArtifactError(line)
        path = given[name]
        digest = _weights_digest(path) if name == "weights" else artifact_digest(open_artifact(path, name))
        if digest != header["inputs"][name]:
            raise ArtifactError(
                what_got_wanted(
                    path,
                    got=f"digest {digest[:12]}…",
                    wanted=f"{header['inputs'][name][:12]}…, that of the {name} of this model",
                    do="pass the same, or make it again with the same settings",
                )
            )


def _train_and_compare(header: dict[str, Any], command: list[str], out: Path) -> None:
    # The order of sums, and so their rounding, follows the number of threads.
    threads = {"OMP_NUM_THREADS": str(header["cpu_threads"])} if header.get("cpu_threads") else {}
    done = subprocess.run(command, check=False, env={**os.environ, **threads})  # noqa: S603 - our own command
    if done.returncode:
        raise SystemExit(done.returncode)
    new = open_artifact(out / "model", "model")
    differing = [name for name, entry in header["files"].items() if new["files"].get(name) != entry]
    if not differing and artifact_digest(new) == artifact_digest(header):
        say("the same model, byte for byte")
        return
    if not differing:
        say("the same weights, byte for byte; model.json differs in versions or names alone")
        return
    if not header["settings"].get("deterministic"):
        warn("it was not trained with --deterministic, so some of what follows is rounding")
    raise ArtifactError(
        what_got_wanted(
            str(out / "model"),
            got=f"other bytes in {', '.join(differing)}",
            wanted="those of the run",
            do="use the versions above, the same number of --processes and the same kind of machine",
        )
    )


if __name__ == "__main__":
    main()
