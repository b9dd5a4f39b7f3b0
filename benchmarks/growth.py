"""How the cost of every step grows: seconds and peak memory at three sizes a factor of four apart.

Each case runs in a process of its own. Its time and its memory are those of the step's work: the imports, and
the memory that the process holds after them, are taken off. The exponent is that of the line through the three
sizes on logarithmic scales: 1 where cost is linear, 0 where it does not grow.

    python -m benchmarks.growth --json out.json [--quick]
"""

import importlib
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Report, fitted_exponent, main, own_process, peak_bytes

#: Faces of the three sizes.
SIZES, QUICK_SIZES = (1000, 4000, 16000), (200, 800, 3200)
SMALL = "--image-size=32 --backbone=test_resnet --feature-dim=16 --epochs=1 --batch-size=32 --workers=1"
#: Step → its flags but for artifacts; they keep the work of a face small, so that much of it fits in a minute.
FLAGS = {
    "ingest_affectnet": "--source=synthetic --synthetic-images={size} --face-size=64 --workers=1",
    "split_dataset": "--val-per-class=1 --test-per-class=1",
    "compute_class_weights": "",
    "fine_tune": SMALL,
    "evaluate": "--resamples=200 --workers=1",
}
ARTIFACTS = {
    "ingest_affectnet": (),
    "split_dataset": ("faces",),
    "compute_class_weights": ("splits",),
    "fine_tune": ("faces", "splits", "class_weights"),
    "evaluate": ("faces", "splits", "model"),
}


def measure(report: Report) -> None:
    """Run all steps at all sizes."""
    sizes = QUICK_SIZES if report.quick else SIZES
    costs: dict[str, list[dict[str, float]]] = {step: [] for step in FLAGS}
    with tempfile.TemporaryDirectory(prefix="benchmark-growth-") as folder:
        for size, step in itertools.product(sizes, FLAGS):
            root = Path(folder) / str(size)
            costs[step].append(own_process("benchmarks.growth", "step", step, root, size))
    report.figures |= {"faces": sizes, "costs": costs}
    for step, found in costs.items():
        for what, unit in (("seconds", "s"), ("bytes", "MB")):
            values = [cost[what] / (1e6 if unit == "MB" else 1) for cost in found]
            named = ", ".join(f"{value:.3g}" for value in values)
            report.add(
                f"{step}_{what}",
                f"{step}: exponent of its {'time' if unit == 's' else 'memory'}",
                fitted_exponent(sizes, values),
                unit="",
                note=f"{named} {unit} for {', '.join(f'{size:,}' for size in sizes)} faces",
            )


def run_step(step: str, root: str, size: str) -> dict[str, Any]:
    """Run a step in this process; return the seconds and the bytes that its work takes."""
    from components.cli import main as command

    component = getattr(importlib.import_module(f"components.{step}.component"), step)
    importlib.import_module(f"components.{step}.step")
    flags = FLAGS[step].format(size=size).split()
    flags += [f"--{name.replace('_', '-')}={root}/{name}" for name in ARTIFACTS[step]]
    before, begun = peak_bytes(), time.perf_counter()
    command(component, [*flags, "--quiet", "--output-dir", root])
    return {"seconds": time.perf_counter() - begun, "bytes": max(peak_bytes() - before, 1)}


if __name__ == "__main__":
    sys.exit(main("growth", __doc__, measure, {"step": run_step}))
