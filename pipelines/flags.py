"""Command-line flags of a pipeline's parameters, for those who start it here or on a cluster."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.structures import InputSpec

_TYPES = {"Integer": int, "Float": float, "String": str}


def add_pipeline_flags(parser: argparse.ArgumentParser, pipelines: Mapping[str, BaseComponent]) -> None:
    """Let the parser take a pipeline's name, and say how its parameters are listed."""
    parser.add_argument("pipeline", choices=sorted(pipelines), help="which pipeline")
    parser.epilog = (
        "Parameters are those of the pipeline: add --list-parameters after its name. A group's prefix may be left "
        "out where no other group has the name: --epochs is --train-epochs."
    )


def parse_parameters(
    parser: argparse.ArgumentParser, pipelines: Mapping[str, BaseComponent], argv: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return the parser's own flags, and the pipeline's parameters that were given, by their full names."""
    flags, rest = parser.parse_known_args(argv)
    inputs = pipelines[flags.pipeline].component_spec.inputs or {}
    short = _short_names(inputs)
    own = _OneLineParser(
        prog=f"{parser.prog} {flags.pipeline}", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False
    )
    own.add_argument("--list-parameters", action="help", help="show this list and leave")
    for name, spec in sorted(inputs.items()):
        names = [_flag(name), *(_flag(alias) for alias, full in short.items() if full == name)]
        default = "" if spec.default in ("", None) else f" [default: {spec.default}]"
        options: dict[str, Any] = {"dest": name, "required": not spec.optional, "default": argparse.SUPPRESS}
        options["help"] = f"{spec.description}{default}".replace("%", "%%")
        if spec.type == "Boolean":
            own.add_argument(*names, action=argparse.BooleanOptionalAction, **options)
        else:
            own.add_argument(*names, type=_TYPES[spec.type], metavar=spec.type.upper(), **options)
    return flags, vars(own.parse_args(rest))


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        known = [flag for action in self._actions for flag in action.option_strings]
        unknown = [word for word in message.split() if word.startswith("--") and word not in known]
        close = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        hint = f"; did you mean {close[0]}?" if close else ""
        self.exit(2, f"error: {message}{hint} (see {self.prog} --list-parameters)\n")


def _short_names(inputs: Mapping[str, InputSpec]) -> dict[str, str]:
    """Return the names without their group's prefix, where only one parameter has that name."""
    ends: dict[str, list[str]] = {}
    for name in inputs:
        ends.setdefault(name.partition("_")[2], []).append(name)
    return {end: names[0] for end, names in ends.items() if len(names) == 1}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
