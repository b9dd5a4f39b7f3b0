"""Write each pipeline for the KFP UI: ``python -m pipelines.compile`` makes ``dist/<pipeline>.yaml``."""

import os
from pathlib import Path

from affectflow.command_line import OneLineParser
from affectflow.progress import say
from components.images import REGISTRY_VARIABLE, TAG_VARIABLE


def main() -> None:
    """Compile all pipelines; the images' registry and tag are read when the components are imported."""
    parser = OneLineParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("--registry", default="", help="where the images are, e.g. registry.example.com/team")
    parser.add_argument("--tag", default="", help="the images' tag [default: version and digest of a step's code]")
    parser.add_argument("--output-dir", type=Path, default=Path("dist"), help="[default: dist]")
    flags = parser.parse_args()
    os.environ[REGISTRY_VARIABLE] = flags.registry
    os.environ[TAG_VARIABLE] = flags.tag
    for file in compile_all(flags.output_dir):
        say(f"{file}: upload it in the KFP UI, or pass its name to python -m pipelines.submit")


def compile_all(output_dir: Path) -> list[Path]:
    """Compile every pipeline into ``output_dir`` and return the files."""
    from kfp import compiler

    from pipelines.registry import PIPELINES

    output_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for name, pipeline in PIPELINES.items():
        file = output_dir / f"{name}.yaml"
        compiler.Compiler().compile(pipeline, package_path=str(file))
        files.append(file)
    return files


if __name__ == "__main__":
    main()
