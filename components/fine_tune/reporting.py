"""What people see of a training run: its name, its lines, its warnings, its charts, its page in MLflow."""

from pathlib import Path

import torch

from affectflow.artifacts import write_file
from affectflow.html import Page
from affectflow.labels import EXPRESSIONS
from affectflow.metrics.drawing import png_bytes
from affectflow.metrics.figures import learning_curves
from affectflow.models import ExpressionModel
from affectflow.progress import say, warn
from affectflow.tracked_run import Run, run_note
from affectflow.training.inputs import Inputs
from affectflow.training.loop import Row
from components.fine_tune.settings import Paths, Settings


def run_name(chosen: Settings) -> str:
    """Return what the run is called in MLflow and on pages."""
    row = [str(chosen.row)] if chosen.row else []
    return " · ".join([*row, chosen.backbone, chosen.source, chosen.loss, f"seed {chosen.seed}"])


def tags(chosen: Settings, inputs: Inputs, code: str) -> dict[str, str]:
    """Return the tags by which a run is found."""
    return {
        "affectflow.kind": "model",
        "row": str(chosen.row or ""),
        "backbone": chosen.backbone,
        "pretrained": chosen.source,
        "loss": chosen.loss,
        "seed": str(chosen.seed),
        "dataset": inputs.splits_digest[:16],
        "code": code[:16],
    }


def say_start(chosen: Settings, inputs: Inputs, model: ExpressionModel, device: torch.device) -> None:
    """Say what is about to be trained."""
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    start = f"from {chosen.source}" if chosen.weights else "from scratch"
    frozen = f", stages 1 to {chosen.frozen_stages} frozen" if chosen.frozen_stages else ""
    say(
        f"fine-tuning {chosen.backbone} {start}{frozen} with {chosen.loss} on "
        f"{len(inputs.splits['train']):,} faces at {chosen.image_size} px on {device}: "
        f"{trainable:,} parameters train"
    )


def report_epoch(chosen: Settings, tracked: Run, row: Row, images_per_second: float | None) -> None:
    """Say and log what an epoch came to; ``images_per_second`` is None for one of an earlier start."""
    numbers = {name: value for name, value in row.items() if isinstance(value, float) and name != "epoch"}
    speed = ""
    if images_per_second is not None:
        numbers["images_per_second"] = images_per_second
        speed = f", {images_per_second:.0f} images/s"
    tracked.log_metrics(numbers, step=int(row["epoch"]))
    tracked.set_tags({"cluster_state": row["cluster_state"]})
    say(
        f"epoch {row['epoch']:.0f}/{chosen.epochs}: train loss {row['train_loss']:.4f}, "
        f"val loss {row['val_loss']:.4f}, val accuracy {row['val_accuracy']:.3f}, "
        f"val UAR {row['val_uar']:.3f}{speed}"
    )


def warn_of_cluster_state(chosen: Settings, last: Row) -> None:
    """Say what the cluster term came to where that is not what it is for (see docs/method.md)."""
    if last["cluster_state"] == "collapsed":
        warn(
            "the features have collapsed: every face has nearly the same one, so one class is predicted; "
            "try --center-init normal, --feature-norm l2 or a smaller lambda"
        )
    elif last["cluster_state"] == "off" and chosen.loss.startswith("weighted_cluster"):
        warn(
            "the weighted-cluster term is off: the centers are so far apart that it pulls next to nothing "
            "(the paper's letter does that); --feature-norm l2 or --alpha-scale features may mend it"
        )


def write_pages(chosen: Settings, paths: Paths, tracked: Run, rows: list[Row], best: Row) -> None:
    """Write the two pages that the KFP UI shows, and log model, history and charts to MLflow."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    curves = png_bytes(learning_curves(columns, title=run_name(chosen), chosen_epoch=int(best["epoch"])))
    page = Page(run_name(chosen))
    page.images((curves, "Loss, accuracy and UAR by epoch"))
    write_file(paths.learning_curves, page.render())
    write_file(paths.summary, _summary(chosen, best, tracked))
    if tracked.run_id:
        tracked.log_bytes(curves, name="learning_curves.png", folder="training")
        tracked.log_folder(paths.history, folder="training/history")
        tracked.log_file(Path(paths.model) / "model.json", folder="training")
        tracked.log_model(paths.model)


def say_end(paths: Paths, best: Row) -> None:
    """Say which epoch was kept and how good it is."""
    say(
        f"kept epoch {best['epoch']:.0f}: validation UAR {best['val_uar']:.3f}, "
        f"accuracy {best['val_accuracy']:.3f} (chance {1 / len(EXPRESSIONS):.3f}); model in {paths.model}"
    )


def _summary(chosen: Settings, best: Row, tracked: Run) -> str:
    return (
        f"## {run_name(chosen)}\n\nKept epoch {best['epoch']:.0f} of {chosen.epochs} ({chosen.select}).\n\n"
        "| on validation | |\n|---|---:|\n"
        f"| UAR | {best['val_uar']:.4f} |\n| accuracy | {best['val_accuracy']:.4f} |\n"
        f"| F1 macro | {best['val_f1_macro']:.4f} |\n| loss | {best['val_loss']:.4f} |\n"
        f"| cluster term | {best['cluster_state']} |\n{run_note(tracked)}"
    )
