"""Check that training and loading did not become much slower beside what one would run instead.

Two quick benchmarks against floors well below their bars; ratios alone, never times, and once more before it
fails, since others may use the machine.

    python -m benchmarks.guard
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

#: Benchmark → key of a row → the least ratio.
FLOORS = {
    "load": {"crops_on_cpu": 1.5},
    "fine_tune_step": {"step_float32": 1.0},
}
TRIES = 2


def main() -> int:
    """Return 1 where a ratio was below its floor both times."""
    return int(not all(holds(name, floors) for name, floors in FLOORS.items()))


def holds(name: str, floors: dict[str, float]) -> bool:
    """Run a benchmark up to :data:`TRIES` times; return whether its ratios stood at or above the floors once."""
    for number in range(TRIES):
        found = ratios(name)
        low = {key: found[key] for key, floor in floors.items() if found[key] < floor}
        for key, floor in floors.items():
            print(f"{name}, {key}: {found[key]:.2f}, floor {floor:g}", flush=True)
        if not low:
            return True
        if number + 1 < TRIES:
            print("below its floor: once more", flush=True)
    print(f"error: {', '.join(low)} of benchmarks.{name}: slower than the floor, twice", file=sys.stderr)
    return False


def ratios(name: str) -> dict[str, float]:
    """Run a quick benchmark and return its rows' values by key."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {row["key"]: row["value"] for row in json.loads(file.read_text(encoding="utf-8"))["rows"]}


if __name__ == "__main__":
    sys.exit(main())
