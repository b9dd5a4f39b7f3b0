"""Write each pipeline for the KFP UI: ``python -m pipelines.compile`` makes ``dist/<pipeline>.yaml``."""

from pathlib import Path

from affectflow.command_line import OneLineParser
from affectflow.progress import say
from pipelines.compile_settings import compile_flags, set_compile_settings


def main() -> None:
    """Compile all pipelines."""
    parser = OneLineParser(prog="python -m pipelines.compile", description=__doc__, parents=[compile_flags()])
    parser.add_argument("--output-dir", type=Path, default=Path("dist"), help="[default: dist]")
    flags = parser.parse_args()
    set_compile_settings(flags)
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
