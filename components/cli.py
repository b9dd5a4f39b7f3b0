"""Turn a KFP component into a command: ``python -m components.<step>``.

The command's flags are the component's inputs, so names, types, defaults and descriptions have one home. It runs
the component through KFP's own executor, exactly as a pipeline does, and ends with what was made and what may
come next.
"""

import argparse
import importlib
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.executor import Executor
from kfp.dsl.structures import InputSpec, OutputSpec

from affectflow.command_line import OneLineParser, add_message_flags
from affectflow.progress import report_error, say
from components.images import TARGETS

#: Set by torchrun: of the processes that it starts, the first alone writes and speaks.
RANK_VARIABLE = "RANK"

#: How the file of an output that is one file ends, so that double-clicking opens it.
_FILE_ENDINGS = {
    "system.HTML": ".html",
    "system.Markdown": ".md",
    "system.Metrics": ".json",
    "system.ClassificationMetrics": ".json",
}


def main(component: BaseComponent, argv: Sequence[str] | None = None) -> None:
    """Run one step with the flags in ``argv``; each output goes to ``--output-dir`` under its own name."""
    specification = component.component_spec
    parser = _build_parser(component)
    flags = vars(parser.parse_args(argv))
    output_dir = Path(flags.pop("output_dir")).absolute()
    if output_dir.exists() and not output_dir.is_dir():
        parser.error(f"--output-dir: got {output_dir}, which is a file, wanted a folder; pass another path")
    output_dir.mkdir(parents=True, exist_ok=True)
    first_process = os.environ.get(RANK_VARIABLE, "0") == "0"
    if not first_process:
        output_dir = Path(tempfile.mkdtemp())

    inputs = specification.inputs or {}
    executor_input = {
        "inputs": {
            "parameterValues": {name: flags[name] for name, spec in inputs.items() if not _is_artifact(spec)},
            "artifacts": {
                name: _artifact(name, spec, Path(flags[name]).absolute())
                for name, spec in inputs.items()
                if _is_artifact(spec) and flags[name]
            },
        },
        "outputs": _outputs(specification.outputs or {}, output_dir),
    }
    try:
        Executor(executor_input=executor_input, function_to_execute=component).execute()
    except KeyboardInterrupt:
        report_error("stopped by the user")
        raise SystemExit(130) from None
    finally:
        shutil.rmtree(output_dir / ".parameters" if first_process else output_dir, ignore_errors=True)
    if not first_process:
        return
    say(_made(component, output_dir))
    if command := next_command(component, flags, output_dir):
        say(f"next: {command}")


def _build_parser(component: BaseComponent) -> argparse.ArgumentParser:
    specification, step = component.component_spec, component.python_func.__name__
    parser = OneLineParser(
        prog=f"python -m components.{step}",
        usage=f"python -m components.{step} --FLAG VALUE … --output-dir DIR",
        description=specification.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inputs = specification.inputs or {}
    artifacts = parser.add_argument_group("input artifacts (folders that other steps wrote)")
    settings = parser.add_argument_group("settings")
    begins = {first: title for title, first in flag_groups(component).items()}
    for name, spec in inputs.items():
        if name in begins:
            settings = parser.add_argument_group(begins[name])
        _add_flag(artifacts if _is_artifact(spec) else settings, name, spec)
    outputs = " ".join(
        f"{_file_name(name, spec)}{'/' if _is_folder(spec) else ''}: {spec.description}"
        for name, spec in (specification.outputs or {}).items()
        if _is_artifact(spec)
    )
    parser.add_argument_group("outputs").add_argument(
        "--output-dir", required=True, metavar="DIR", help=f"Folder for what the step writes. {outputs}"
    )
    add_message_flags(parser)
    return parser


def flag_groups(component: BaseComponent) -> dict[str, str]:
    """Return a component's groups of settings: title → the setting that begins it.

    They stand in ``GROUPS`` beside the component, where it has many settings; the order is the signature's.
    """
    module = importlib.import_module(component.python_func.__module__)
    groups: dict[str, str] = getattr(module, "GROUPS", {})
    return groups


def next_command(component: BaseComponent, flags: Mapping[str, Any], output_dir: Path) -> str:
    """Return the command of the step that takes what ``component`` wrote, or ``""`` where none does.

    Args:
        component: the step that has run.
        flags: its inputs by name; those that the next step takes as well are passed on.
        output_dir: where its outputs are.
    """
    specification, step = component.component_spec, component.python_func.__name__
    made = {
        name: _shown(output_dir / name)
        for name, spec in (specification.outputs or {}).items()
        if _is_artifact(spec)
    }
    if "evaluation" in (specification.outputs or {}):
        made["runs"] = _shown(output_dir)  # compare_runs takes evaluate's folder in place of a run's id
    for following in list(TARGETS)[list(TARGETS).index(step) + 1 :]:
        inputs = _load(following).component_spec.inputs or {}
        wanted = [name for name, spec in inputs.items() if not spec.optional or name in made]
        if not set(wanted) & set(made):
            continue
        given = {name: made.get(name) or flags.get(name) for name in wanted}
        words = [
            f"--{name.replace('_', '-')} {shlex.quote(value) if value else 'PATH'}"
            for name, value in given.items()
        ]
        return f"python -m components.{following} {' '.join(words)} --output-dir DIR"
    return ""


def _load(step: str) -> BaseComponent:
    component: BaseComponent = getattr(importlib.import_module(f"components.{step}.component"), step)
    return component


def _made(component: BaseComponent, output_dir: Path) -> str:
    """Return a line for everything that the step wrote: where it is and what it is."""
    outputs = {
        _shown(output_dir / _file_name(name, spec)): " ".join((spec.description or "").split())
        for name, spec in (component.component_spec.outputs or {}).items()
        if _is_artifact(spec) and (output_dir / _file_name(name, spec)).exists()
    }
    width = max(map(len, outputs), default=0)
    return "\n".join(["made:", *(f"  {place:<{width}}  {what}" for place, what in outputs.items())])


def _shown(path: Path) -> str:
    """Return a path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _add_flag(group: argparse._ArgumentGroup, name: str, spec: InputSpec) -> None:
    flag = "--" + name.rstrip("_").replace("_", "-")
    description = " ".join((spec.description or "").split()).replace("%", "%%")
    if spec.optional and spec.default not in ("", None, []):
        description += f" [default: {spec.default}]"
    options: dict[str, Any] = {"dest": name, "help": description, "required": not spec.optional}
    if spec.optional:
        options["default"] = spec.default
    if _is_artifact(spec):
        group.add_argument(flag, metavar="PATH", **options)
    elif spec.type == "Boolean":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
    elif spec.type == "List":
        group.add_argument(flag, nargs="+", metavar=name.rstrip("s").upper(), **options)
    else:
        kinds = {"Integer": int, "Float": float, "String": str, "Dict": json.loads}
        group.add_argument(flag, type=kinds[spec.type], metavar=spec.type.upper(), **options)


def _outputs(specs: dict[str, OutputSpec], output_dir: Path) -> dict[str, Any]:
    artifacts, parameters = {}, {}
    for name, spec in specs.items():
        if _is_artifact(spec):
            artifacts[name] = _artifact(name, spec, output_dir / _file_name(name, spec))
        else:
            parameters[name] = {"outputFile": str(output_dir / ".parameters" / name)}
    return {
        "artifacts": artifacts,
        "parameters": parameters,
        "outputFile": str(output_dir / "executor_output.json"),
    }


def _artifact(name: str, spec: InputSpec | OutputSpec, path: Path) -> dict[str, Any]:
    schema_title = spec.type.split("@")[0]
    described = {"name": name, "uri": str(path), "metadata": {}, "type": {"schemaTitle": schema_title}}
    return {"artifacts": [described]}


def _is_artifact(spec: InputSpec | OutputSpec) -> bool:
    return str(spec.type).startswith("system.")


def _is_folder(spec: OutputSpec) -> bool:
    return spec.type.split("@")[0] not in _FILE_ENDINGS


def _file_name(name: str, spec: OutputSpec) -> str:
    return name + _FILE_ENDINGS.get(spec.type.split("@")[0], "")


def load_outputs(output_dir: Path) -> dict[str, Any]:
    """Return what the executor wrote about a step's outputs: artifacts with their metadata, parameters."""
    return json.loads((output_dir / "executor_output.json").read_text(encoding="utf-8"))
