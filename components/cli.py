"""Turn a KFP component into a command: ``python -m components.<step>``.

The command's flags are the component's inputs, so names, types, defaults and descriptions have one home. It runs
the component through KFP's own executor, exactly as a pipeline does.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.executor import Executor
from kfp.dsl.structures import InputSpec, OutputSpec

from affectflow.command_line import OneLineParser

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

    inputs = specification.inputs or {}
    executor_input = {
        "inputs": {
            "parameterValues": {name: flags[name] for name, spec in inputs.items() if not _is_artifact(spec)},
            "artifacts": {
                name: _artifact(name, spec, Path(flags[name]).absolute())
                for name, spec in inputs.items()
                if _is_artifact(spec)
            },
        },
        "outputs": _outputs(specification.outputs or {}, output_dir),
    }
    try:
        Executor(executor_input=executor_input, function_to_execute=component).execute()
    except KeyboardInterrupt:
        print("error: stopped by the user", file=sys.stderr)  # noqa: T201
        raise SystemExit(130) from None
    finally:
        shutil.rmtree(output_dir / ".parameters", ignore_errors=True)


def _build_parser(component: BaseComponent) -> argparse.ArgumentParser:
    specification, step = component.component_spec, component.python_func.__name__
    parser = OneLineParser(
        prog=f"python -m components.{step}",
        usage=f"python -m components.{step} --FLAG VALUE … --output-dir DIR",
        description=specification.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    groups = {
        True: parser.add_argument_group("input artifacts (folders that other steps wrote)"),
        False: parser.add_argument_group("settings"),
    }
    for name, spec in (specification.inputs or {}).items():
        _add_flag(groups[_is_artifact(spec)], name, spec)
    outputs = " ".join(
        f"{_file_name(name, spec)}{'/' if _is_folder(spec) else ''}: {spec.description}"
        for name, spec in (specification.outputs or {}).items()
        if _is_artifact(spec)
    )
    parser.add_argument_group("outputs").add_argument(
        "--output-dir", required=True, metavar="DIR", help=f"Folder for what the step writes. {outputs}"
    )
    return parser


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
