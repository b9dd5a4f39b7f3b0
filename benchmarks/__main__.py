"""Run all benchmarks and print their table: ``python -m benchmarks [--quick] [--output-dir DIR] [NAME ...]``."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import table

NAMES = ("fine_tune_step", "load", "loss", "ingest", "evaluate", "pipeline", "startup", "growth", "precision")


def main() -> int:
    """Run each benchmark in a process of its own; return 1 when one failed or missed a bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="less work, to see that they run")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/bench"), help="[default: runs/bench]")
    flags = parser.parse_args()
    if unknown := sorted(set(flags.names) - set(NAMES)):
        parser.error(f"benchmark: got {unknown[0]!r}, wanted one of {', '.join(NAMES)}")
    failed, documents = [], []
    for name in flags.names or NAMES:
        file = flags.output_dir / f"{name}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
        print(f"running {name}", file=sys.stderr, flush=True)
        if subprocess.run([*command, *(["--quick"] if flags.quick else [])], stdout=subprocess.DEVNULL).returncode:
            failed.append(name)
        if file.exists():
            documents.append(json.loads(file.read_text(encoding="utf-8")))
    text = table(documents)
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    (flags.output_dir / "table.md").write_text(text, encoding="utf-8")
    print(text)
    if failed:
        print(f"failed or missed a bar: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
