"""The paper's tables at small size on real faces: five losses, two backbones, two seeds.

The report is kept in ``build/reports/paper_tables``.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from affectflow.report.published import LOSSES

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.timeout(3600)]

KEPT = Path(__file__).parents[2] / "build" / "reports" / "paper_tables"
SETTINGS = (
    *(
        "--rows",
        "1-5,11-15",
        "--seeds",
        "0,1",
        "--layout",
        "csv",
        "--val-per-class",
        "5",
        "--test-per-class",
        "10",
    ),
    *("--face-size", "48", "--image-size", "32", "--epochs", "2", "--data-workers", "1"),
    *("--evaluate-resamples", "200", "--compare-resamples", "500"),
    *("--backbone-map", '{"se_resnet50": "test_resnet", "resnet50": "resnet10t"}'),
)


def write_faces(root: Path, ferplus: Path, each: int) -> None:
    """Write a folder with the first faces of every expression, three times as many of the two commonest.

    Without this imbalance every class weight would be 1. The pictures stay where they are.
    """
    root.mkdir()
    (root / "images").symlink_to(ferplus / "images")
    head, *lines = (ferplus / "labels.csv").read_text().splitlines()
    seen: Counter[str] = Counter()
    chosen = []
    for line in lines:
        label = line.split(",")[1]
        seen[label] += 1
        if seen[label] <= (3 * each if label in {"neutral", "happiness"} else each):
            chosen.append(line)
    # Named as in images/, so that the table's paths stay within the linked folder.
    (root / "labels.csv").write_text("\n".join([head, *chosen]).replace("images/", ""))


def test_all_losses_on_two_backbones_and_two_seeds_make_the_report(tmp_path: Path, test_data: Path) -> None:
    write_faces(tmp_path / "source", test_data / "ferplus", each=40)
    command = [sys.executable, "-m", "pipelines.local", "--work", str(tmp_path / "work"), "paper_tables"]
    done = subprocess.run(
        [*command, "--source", str(tmp_path / "source"), *SETTINGS],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("report: ")]
    report = Path(line.removeprefix("report: ")).parent
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.copytree(report, KEPT)

    comparison = json.loads((report / "comparison.json").read_text())
    assert {model["number"]: model["seeds"] for model in comparison["models"]} == {
        row: [0, 1] for row in (*range(1, 6), *range(11, 16))
    }
    assert {model["loss"] for model in comparison["models"]} == set(LOSSES)
    assert {(pair["model"].split()[0], tuple(pair["seeds"])) for pair in comparison["differences"]} == {
        (str(row), (0, 1)) for row in (2, 3, 4, 5, 12, 13, 14, 15)
    }
    brier = {model["number"]: model["metrics"]["brier_score"]["value"] for model in comparison["models"]}
    assert len(set(brier.values())) == len(brier), "two losses made the same models"
    assert comparison["test_set"]["n"] == 80
    text = (report / "report.md").read_text()
    assert "test_resnet for se_resnet50 in row 1, 2, 3, 4, 5." in text
    assert "resnet10t for resnet50 in row 11, 12, 13, 14, 15." in text
    words = {row["verdict"] for row in csv.DictReader((report / "comparison.csv").open()) if row["verdict"]}
    assert words and all(word == "within noise" or word.startswith(("better", "worse")) for word in words)
    page = (report / "report.html").read_text()
    for title in ("Table 5", "Table 6", "Figure 5", "Figure 6", "Recall by class", "What the centers did"):
        assert title in page
