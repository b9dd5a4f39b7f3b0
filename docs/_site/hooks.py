"""What MkDocs calls while it builds the site: pages made from the components, and a site that fetches nothing."""

import importlib
from typing import Any

from kfp.dsl.base_component import BaseComponent
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from affectflow.artifacts import HEADERS
from components.cli import flag_groups
from components.images import TARGETS

_STEPS = "reference/steps.md"

#: Tables whose columns are constants in the code, by artifact: module and name of the schema.
_SCHEMAS = {
    "faces": ("affectflow.data.manifest", "MANIFEST_SCHEMA"),
    "splits": ("affectflow.data.splits", "SPLITS_SCHEMA"),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from code."""
    for path, text in ((_STEPS, steps_page()), ("reference/artifacts.md", artifacts_page())):
        files.append(File.generated(config, path, content=text))
    return files


def steps_page() -> str:
    """Return the reference of the steps, from their signatures and docstrings."""
    parts = [
        "# Steps\n\nEach step is a component of a pipeline and a command, `python -m components.<step>`. "
        "This page is made from the components themselves.\n"
    ]
    for step in TARGETS:
        component: BaseComponent = getattr(importlib.import_module(f"components.{step}.component"), step)
        specification = component.component_spec
        parts.append(f"\n## {step}\n\n{_description(specification.description or '')}\n")
        inputs = specification.inputs or {}
        artifacts = {name: spec for name, spec in inputs.items() if _is_artifact(spec)}
        settings = {name: spec for name, spec in inputs.items() if not _is_artifact(spec)}
        if artifacts:
            parts.append("\n**Reads**\n\n| flag | artifact |\n|---|---|\n")
            parts += [f"| `--{_flag(name)}` | {_cell(spec.description)} |\n" for name, spec in artifacts.items()]
        begins = {first: title for title, first in flag_groups(component).items()}
        if settings:
            parts.append("\n**Settings**\n")
        header = "\n| flag | type | default | meaning |\n|---|---|---|---|\n"
        for number, (name, spec) in enumerate(settings.items()):
            if name in begins:
                parts.append(f"\n*{begins[name]}*\n{header}")
            elif number == 0:
                parts.append(header)
            default = "required" if not spec.optional else f"`{spec.default!r}`"
            row = (f"`--{_flag(name)}`", spec.type.lower(), default, _cell(spec.description))
            parts.append(f"| {' | '.join(row)} |\n")
        parts.append("\n**Writes**\n\n| output | what it holds |\n|---|---|\n")
        parts += [
            f"| `{name}` | {_cell(spec.description)} |\n" for name, spec in (specification.outputs or {}).items()
        ]
    return "".join(parts)


def artifacts_page() -> str:
    """Return the reference of the artifacts: headers, files and columns."""
    parts = [
        "# Artifacts\n\nFolders that steps pass on. Each has a header, a JSON file with the kind (`artifact`), "
        "the `schema_version`, and `files`: size and SHA-256 of every other file. A reader checks all of them "
        "before it goes on; a folder that is missing, half-written or changed is an error that names the file."
        "\n\n"
        "| artifact | header |\n|---|---|\n"
    ]
    parts += [f"| `{kind}/` | `{header}` |\n" for kind, header in HEADERS.items()]
    for kind, (module, name) in _SCHEMAS.items():
        schema = getattr(importlib.import_module(module), name)
        parts.append(f"\n## Columns of {kind}\n\n| column | type |\n|---|---|\n")
        parts += [f"| `{field.name}` | {field.type} |\n" for field in schema]
    parts.append(
        "\n## Reading and writing them\n\n::: affectflow.artifacts\n    options:\n      show_root_heading: false\n"
    )
    return "".join(parts)


def _is_artifact(spec: Any) -> bool:
    return str(spec.type).startswith("system.")


def _flag(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _description(text: str) -> str:
    """Return a component's description with its example as a block of code."""
    prose, _, example = " ".join(text.split()).partition("Example: ")
    return f"{prose}\n\n```text\n{example}\n```" if example else prose
