"""Look for what would stop a run on this machine, and say how to mend it: ``python -m affectflow.doctor``.

Checks Python, packages, torch, GPUs, memory and disk, and what the flags name: the face data, a weights file, an
S3 prefix, a KFP endpoint, MLflow. Exit codes: 0 nothing to mend, 2 something to mend.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from affectflow.command_line import OneLineParser
from affectflow.doctor import files, machine, servers
from affectflow.doctor.check import Finding, Status, examine
from affectflow.errors import USER_ERROR
from affectflow.progress import Tone, paint

_TONES: dict[Status, Tone] = {"ok": "good", "note": "warning", "bad": "bad", "skipped": "soft"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks, print what they find, and return the exit code."""
    flags = _parser().parse_args(argv)
    findings = diagnose(flags)
    healthy = all(finding.status != "bad" for finding in findings)
    if flags.json:
        text = json.dumps({"healthy": healthy, "findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        text = _table(findings)
    print(text)  # noqa: T201 - this is what the command is for
    return 0 if healthy else USER_ERROR


def diagnose(flags: argparse.Namespace) -> list[Finding]:
    """Return the findings of every check, in the order in which they are shown."""
    findings = [
        *examine("Python", machine.check_python),
        *examine("packages", machine.check_packages),
        *examine("torch", machine.check_torch),
        *examine("memory", machine.check_memory),
        *examine("disk", functools.partial(machine.check_disk, flags.work)),
    ]
    dataset = functools.partial(files.check_dataset, layout=flags.layout)
    weights = functools.partial(files.check_weights, backbone=flags.backbone)
    asked: dict[str, tuple[str, str, Callable[[str], Iterator[Finding]]]] = {
        "dataset": (flags.source, "--source DIR", dataset),
        "weights": (flags.weights, "--weights FILE", weights),
        "MLflow": (
            flags.mlflow or os.environ.get("MLFLOW_TRACKING_URI", ""),
            "--mlflow URI, or set MLFLOW_TRACKING_URI",
            servers.check_mlflow,
        ),
        "S3": (flags.s3, "--s3 s3://bucket/prefix", servers.check_s3),
        "KFP": (flags.kfp, "--kfp URL", servers.check_kfp),
    }
    for name, (value, flag, check) in asked.items():
        if value:
            findings += examine(name, functools.partial(check, value))
        else:
            findings.append(Finding(name, "skipped", f"not asked for: {flag}"))
    return findings


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m affectflow.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("data and weights")
    data.add_argument("--source", default="", metavar="DIR", help="folder with the face data")
    data.add_argument("--layout", default="auto", help="its layout, as for ingest_affectnet [default: auto]")
    data.add_argument("--weights", default="", metavar="FILE", help="file of pre-trained weights, here or s3://…")
    data.add_argument("--backbone", default="", metavar="NAME", help="backbone that the weights must fit")
    where = parser.add_argument_group("places")
    where.add_argument(
        "--work", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept [default: runs]"
    )
    where.add_argument("--mlflow", default="", metavar="URI", help="[default: MLFLOW_TRACKING_URI]")
    where.add_argument("--s3", default="", metavar="URL", help="s3://bucket/prefix that must be listed")
    where.add_argument("--kfp", default="", metavar="URL", help="endpoint of Kubeflow Pipelines")
    parser.add_argument("--json", action="store_true", help="print JSON: healthy, and a list of findings")
    return parser


def _table(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        status = paint(f"{finding.status:<8}", _TONES[finding.status], sys.stdout)
        lines.append(f"{status}{finding.name:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<{8 + width}}  → {finding.mend}")
    bad = [finding.name for finding in findings if finding.status == "bad"]
    lines.append(f"\nto mend: {', '.join(bad)}" if bad else "\nnothing to mend")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
