"""Command-line flags of a pipeline's parameters, for those who start it here or on a cluster."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.structures import InputSpec

from affectflow.command_line import OneLineParser

#: Whose parameter is meant where several groups have the name.
_MAIN_GROUP = "train_"

_FIRST_GROUP = "data_"

#: Prefix of a group of parameters → what it is about.
_GROUPS = {
    "data": "what is read and how faces are cut",
    "split": "which faces validate and test",
    "train": "the model and its training",
    "evaluate": "how models are scored",
    "compare": "the comparison",
    "plan": "which models are trained",
    "pod": "what the training asks of the cluster",
}

_TYPES = {"Integer": int, "Float": float, "String": str}


def add_pipeline_flags(parser: argparse.ArgumentParser, pipelines: Mapping[str, BaseComponent]) -> None:
    """Let the parser take a pipeline's name, and say how its parameters are listed."""
    parser.add_argument("pipeline", choices=sorted(pipelines), help="which pipeline")
    parser.epilog = (
        "Parameters are those of the pipeline; --help after its name lists them. A group's prefix may be left "
        "out: --source is --data-source, and --seed, which several groups have, is --train-seed."
    )


def parse_parameters(
    parser: argparse.ArgumentParser, pipelines: Mapping[str, BaseComponent], argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the parser's own flags, and the pipeline's parameters that were given, by their full names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((name for name in arguments if name in pipelines), None)
    if named and {"-h", "--help"} & set(arguments):
        _parameter_parser(parser.prog, named, pipelines[named]).parse_args(["--help"])
    flags, rest = parser.parse_known_args(arguments)
    own = _parameter_parser(parser.prog, flags.pipeline, pipelines[flags.pipeline])
    return flags, vars(own.parse_args(rest))


def _parameter_parser(program: str, name: str, pipeline: BaseComponent) -> OneLineParser:
    inputs = pipeline.component_spec.inputs or {}
    short = _short_names(inputs)
    parser = OneLineParser(
        prog=f"{program} {name}",
        usage=f"{program} {name} --PARAMETER VALUE …",
        description=pipeline.component_spec.description,
    )
    groups: dict[str, Any] = {}
    for full, spec in sorted(inputs.items(), key=lambda item: (not item[0].startswith(_FIRST_GROUP), item[0])):
        prefix = full.partition("_")[0]
        if prefix not in groups:
            groups[prefix] = parser.add_argument_group(f"{prefix}: {_GROUPS.get(prefix, 'further settings')}")
        names = [_flag(full), *(_flag(alias) for alias, meant in short.items() if meant == full)]
        default = "" if spec.default in ("", None) else f" [default: {spec.default}]"
        options: dict[str, Any] = {"dest": full, "required": not spec.optional, "default": argparse.SUPPRESS}
        options["help"] = f"{spec.description}{default}".replace("%", "%%")
        if spec.type == "Boolean":
            groups[prefix].add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        else:
            groups[prefix].add_argument(*names, type=_TYPES[spec.type], metavar=spec.type.upper(), **options)
    return parser


def _short_names(inputs: Mapping[str, InputSpec]) -> dict[str, str]:
    """Return names without their group's prefix: training's where several groups have one, else the only one."""
    ends: dict[str, list[str]] = {}
    for name in inputs:
        ends.setdefault(name.partition("_")[2], []).append(name)
    return {
        end: next((name for name in names if name.startswith(_MAIN_GROUP)), names[0])
        for end, names in ends.items()
        if len(names) == 1 or any(name.startswith(_MAIN_GROUP) for name in names)
    }


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
