"""All steps on a few drawn faces: what the fault tests break, kill and read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from step_server import StepServer, flags_of

#: A network and a schedule that train in a second.
TINY: dict[str, Any] = {
    "backbone": "test_resnet", "freeze_stages": 0, "keep_batchnorm": "all", "image_size": 32, "feature_dim": 16,
    "batch_size": 12, "epochs": 3, "learning_rate": 0.01, "select": "last", "workers": 1, "deterministic": True,
}  # fmt: skip


@dataclass(frozen=True)
class SmallPipeline:
    """The outputs of every step under one folder; :meth:`flags` gives a step's flags but for its output folder."""

    root: Path

    def artifact(self, kind: str) -> Path:
        step = {
            "faces": "ingest_affectnet", "splits": "split_dataset", "class_weights": "compute_class_weights",
            "model": "fine_tune", "history": "fine_tune", "predictions": "evaluate", "metrics": "evaluate",
            "comparison": "compare_runs",
        }[kind]  # fmt: skip
        return self.root / step / kind

    @property
    def source(self) -> Path:
        return self.root / "source"

    def flags(self, step: str, **changes: Any) -> list[str]:
        read = {name: self.artifact(name) for name in ("faces", "splits", "class_weights", "model")}
        values: dict[str, Any] = {
            "ingest_affectnet": {"source": self.source, "layout": "manual", "face_size": 64, "workers": 1},
            "split_dataset": {"faces": read["faces"], "val_per_class": 2, "test_per_class": 2},
            "compute_class_weights": {"splits": read["splits"]},
            "fine_tune": {name: read[name] for name in ("faces", "splits", "class_weights")} | TINY,
            "evaluate": {name: read[name] for name in ("faces", "splits", "model")}
            | {"resamples": 100, "workers": 1},
            "compare_runs": {"runs": [self.root / "evaluate"], "resamples": 100},
        }[step]
        return flags_of({**values, **changes})


def build(root: Path, server: StepServer) -> SmallPipeline:
    """Draw 120 faces and run every step."""
    from affectflow.data.synthetic import write_synthetic_affectnet

    pipeline = SmallPipeline(root)
    pipeline.source.mkdir(parents=True)
    write_synthetic_affectnet(pipeline.source, images=120, seed=0)
    for step in (
        "ingest_affectnet",
        "split_dataset",
        "compute_class_weights",
        "fine_tune",
        "evaluate",
        "compare_runs",
    ):
        flags = [*pipeline.flags(step), "--output-dir", str(root / step)]
        server.run_well(step, flags, root / f"{step}.log")
    return pipeline
