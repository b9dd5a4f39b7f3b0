"""What bfloat16 does to the final UAR: fine_tune twice on real faces, in float32 and in bfloat16, all else equal.

Reads ``ferplus/`` (a table and pictures) and ``weights/vggface2_mobilenetv1_100.safetensors`` in the folder that
AFFECTFLOW_TEST_DATA names; without it nothing is measured. MobileNet-v1 with VGGFace2 weights; 10 faces of every
expression validate and 10 test, so that one face is 0.0125 of the UAR.

    python -m benchmarks.precision --json out.json [--quick]
"""

import os
import sys
import tempfile
from pathlib import Path

from affectflow.artifacts import read_header
from benchmarks.measure import Report, main
from benchmarks.pictures import run_step

WEIGHTS = "weights/vggface2_mobilenetv1_100.safetensors"
#: How far the UAR in bfloat16 may be from float32's: four of 80 faces.
TOLERANCE = 0.05


def measure(report: Report) -> None:
    """Train both, and score them on the test split."""
    data = os.environ.get("AFFECTFLOW_TEST_DATA")
    if not data:
        print("AFFECTFLOW_TEST_DATA names no folder of real faces: nothing to measure", file=sys.stderr)
        return
    side, epochs = (48, 1) if report.quick else (96, 3)
    uar = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-precision-") as folder:
        root = Path(folder)
        source = ("--source", Path(data) / "ferplus", "--layout", "csv")
        run_step("ingest_affectnet", root, *source, "--face-size", side)
        run_step("split_dataset", root, "--faces", root / "faces", "--val-per-class", 10, "--test-per-class", 10)
        run_step("compute_class_weights", root, "--splits", root / "splits")
        read = [f"--{name.replace('_', '-')}={root}/{name}" for name in ("faces", "splits")]
        network = ("--backbone", "mobilenetv1_100", "--weights", Path(data) / WEIGHTS, "--image-size", side)
        for name in ("float32", "bfloat16"):
            out = root / name
            weights = ("--class-weights", root / "class_weights")
            run_step("fine_tune", out, *read, *weights, *network, "--epochs", epochs, "--precision", name)
            run_step("evaluate", out, *read, "--model", out / "model", "--resamples", 200, "--precision", name)
            uar[name] = read_header(str(out / "metrics"), "metrics")["test"]["uar"]["value"]
    report.figures |= {"uar": uar, "image_size": side, "epochs": epochs}
    for name, value in uar.items():
        what = f"UAR of 80 test faces after {epochs} epochs at {side} px in {name}"
        report.add(f"uar_{name}", what, value, unit="")
    gap = abs(uar["bfloat16"] - uar["float32"])
    report.add("uar_difference", "difference of the two", gap, unit="", at_most=TOLERANCE)


if __name__ == "__main__":
    sys.exit(main("precision", __doc__, measure))
