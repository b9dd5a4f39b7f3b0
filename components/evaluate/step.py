"""Score a model: settings → inputs → probabilities → metrics with intervals → artifacts, figures, MLflow run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import Field

from affectflow.artifacts import artifact_digest, new_artifact, open_artifact, read_header, write_file
from affectflow.data.faces import decode_image
from affectflow.errors import ArtifactError, what_got_wanted
from affectflow.headers import ModelHeader, check_header
from affectflow.labels import EXPRESSIONS
from affectflow.metrics import (
    CALIBRATION_METRICS,
    METRICS,
    apply_temperature,
    bootstrap_intervals,
    evaluate_all,
    fit_temperature,
    mean_roc_curve,
)
from affectflow.model_report.card import model_card as write_card
from affectflow.model_report.page import Scored, model_page, split_figures
from affectflow.model_report.thumbnails import thumbnail
from affectflow.models import ExpressionModel, InputNorm, Normalize, load_model
from affectflow.predictions import PREDICTIONS_FILE, PREDICTIONS_SCHEMA
from affectflow.progress import progress, say
from affectflow.steps import StepSettings, check_settings
from affectflow.tracked_run import Run, run_note
from affectflow.tracking import (
    evaluation_folder,
    evaluation_reference,
    existing_run,
    mark_evaluated,
    write_sidecar,
)
from affectflow.training.inference import best_device, run_model
from affectflow.training.inputs import Inputs, SplitFaces, open_inputs
from affectflow.training.loading import WholeFaces, loader
from affectflow.training.memory import keep_freed_memory

#: What metrics.json says of the model, so that a comparison needs no other file.
_MODEL_FIELDS = ("row", "backbone", "pretrained", "loss", "seed", "settings", "selected_epoch", "image_size")


class Settings(StepSettings):
    """What :func:`run` takes; see ``component.py`` for meanings and defaults."""

    batch_size: int = Field(ge=1)
    resamples: int = Field(ge=100, le=100_000)
    precision: Literal["float32", "bfloat16", "float16"]
    workers: int = Field(ge=0, le=128)
    seed: int = Field(ge=0, lt=2**31)
    plan_key: str = Field(pattern="^([0-9a-f]{16,64})?$")


@dataclass(frozen=True)
class Result:
    """What the KFP UI shows of the test split.

    Attributes:
        scalars: metric → value.
        classes: names in code order.
        confusion_matrix: counts, rows = truth.
        roc_curve: false positive rates, true positive rates and thresholds, averaged over the classes.
        evaluation: its address in MLflow, or the folder of the metrics where the model is untracked.
    """

    scalars: dict[str, float]
    classes: list[str]
    confusion_matrix: list[list[int]]
    roc_curve: tuple[list[float], list[float], list[float]]
    evaluation: str


def run(
    *,
    faces: str,
    splits: str,
    model: str,
    predictions: str,
    metrics: str,
    figures: str,
    model_card: str,
    summary: str,
    history: str = "",
    **settings: Any,
) -> Result:
    """Score one model and write what it says; see ``component.py`` for what each path holds."""
    chosen = check_settings(Settings, **settings)
    network, header = load_model(model)
    check_header(model, "model", header, ModelHeader)
    inputs = open_inputs(faces, splits)
    _check_same_splits(model, header, inputs)

    probability = {
        split: _probabilities(chosen, network, header, inputs, inputs.splits[split]) for split in ("val", "test")
    }
    temperature = fit_temperature(inputs.splits["val"].target, probability["val"])
    scores = {
        split: _score(chosen, inputs.splits[split], values, temperature) for split, values in probability.items()
    }

    tracked = existing_run(model, journal=str(Path(metrics).absolute().parent))
    table = _prediction_table(inputs, probability)
    about = {"splits_digest": inputs.splits_digest, "rows": table.num_rows}
    with new_artifact(predictions, "predictions", about) as folder:
        pq.write_table(table, folder / PREDICTIONS_FILE)
    fields = {
        "model": {name: header[name] for name in _MODEL_FIELDS},
        "model_digest": artifact_digest(header),
        "splits_digest": inputs.splits_digest,
        "test_set_digest": inputs.splits["test"].digest,
        "precision": chosen.precision,
        "temperature": temperature,
        **scores,
    }
    with new_artifact(metrics, "metrics", fields) as folder:
        write_sidecar(folder, tracked)

    test = _scored(inputs, probability["test"], temperature)
    pictures = split_figures(test, scores["test"]["confusion_matrix"])
    page = model_page(
        f"{header['backbone']} · {header['pretrained']} · {header['loss']} · seed {header['seed']}",
        test,
        scores["test"],
        figures=pictures,
        history=_read_history(history),
        selected_epoch=header["selected_epoch"],
        settings=header["settings"],
        provenance=_provenance(header, fields, tracked),
        lead=_describe(header, scores, temperature),
    )
    write_file(figures, page)
    card = write_card(
        header,
        dataset=inputs.faces.header,
        counts={split: inputs.splits[split].counts for split in ("train", "val", "test")},
        test=scores["test"],
    )
    write_file(model_card, card)
    write_file(summary, _markdown(scores["test"], tracked))
    digest = artifact_digest(read_header(metrics, "metrics"))
    if tracked.run_id:
        _log_metrics(tracked, scores, temperature)
        artifacts = {"predictions": predictions, "metrics": metrics}
        pages = {"figures.html": figures, "model_card.md": model_card}
        _log_files(tracked, evaluation_folder(digest), artifacts, pages, pictures)
        mark_evaluated(tracked, digest, chosen.plan_key)
    tracked.close()

    for line in _table(scores["test"]):
        say(f"test {line[0]:<28} {line[1]:>7}  {line[2]}")
    evaluation = evaluation_reference(tracked, digest) if tracked.run_id else metrics
    return _result(inputs.splits["test"], probability["test"], scores["test"], evaluation)


def _check_same_splits(model: str, header: dict[str, Any], inputs: Inputs) -> None:
    trained_on = header["inputs"]["splits"]
    if trained_on != inputs.splits_digest:
        raise ArtifactError(
            what_got_wanted(
                model,
                got=f"a model of the splits {trained_on[:12]}…",
                wanted=f"one of the splits {inputs.splits_digest[:12]}…",
                do="pass the splits that it was trained with, or it is tested on its training faces",
            )
        )


def _probabilities(
    chosen: Settings, network: ExpressionModel, header: dict[str, Any], inputs: Inputs, part: SplitFaces
) -> NDArray[np.float64]:
    device = best_device()
    if device.type == "cpu":
        keep_freed_memory()
    faces = WholeFaces(
        inputs.faces,
        part.rows,
        part.target,
        image_size=header["image_size"],
        crops_on_device=device.type != "cpu",
    )
    batches = loader(faces, workers=chosen.workers, batch_size=chosen.batch_size)
    outputs = run_model(
        network.to(device, memory_format=torch.channels_last),
        progress(batches, total=len(batches), desc="scoring", unit="batches"),
        normalise=Normalize(InputNorm.from_json(header["input_norm"])).to(device),
        device=device,
        precision=chosen.precision,
    )
    return outputs.probability.numpy()


def _score(
    chosen: Settings, part: SplitFaces, probability: NDArray[np.float64], temperature: float
) -> dict[str, Any]:
    intervals, scaled = (
        bootstrap_intervals(
            part.target,
            values,
            groups=part.group,
            metrics=names,
            resamples=chosen.resamples,
            seed=chosen.seed,
        )
        for values, names in (
            (probability, METRICS),
            (apply_temperature(probability, temperature), CALIBRATION_METRICS),
        )
    )
    everything = evaluate_all(part.target, probability)
    return {
        "n": everything["n"],
        **{name: dict(interval) for name, interval in intervals.items()},
        "per_class": everything["per_class"],
        "confusion_matrix": everything["confusion_matrix"],
        "confusion_matrix_shares": everything["confusion_matrix_shares"],
        "temperature_scaled": {name: dict(interval) for name, interval in scaled.items()},
    }


def _prediction_table(inputs: Inputs, probability: dict[str, NDArray[np.float64]]) -> pa.Table:
    parts = [
        pa.table(
            {
                "image_id": inputs.splits[split].image_id,
                "group": inputs.splits[split].group,
                "split": [split] * len(values),
                "target": inputs.splits[split].target.astype(np.int8),
                "probability": list(values),
            },
            schema=PREDICTIONS_SCHEMA,
        )
        for split, values in probability.items()
    ]
    return pa.concat_tables(parts)


def _scored(inputs: Inputs, probability: NDArray[np.float64], temperature: float) -> Scored:
    part = inputs.splits["test"]

    def small_face(position: int) -> bytes:
        return thumbnail(decode_image(inputs.faces.image_bytes(int(part.rows[position]))))

    return Scored(part.target, probability, small_face, temperature)


def _read_history(path: str) -> dict[str, list[Any]] | None:
    if not path:
        return None
    open_artifact(path, "history")
    columns: dict[str, list[Any]] = pq.read_table(Path(path) / "history.parquet").to_pydict()
    return columns


def _provenance(header: dict[str, Any], fields: dict[str, Any], tracked: Run) -> dict[str, str]:
    run = {"MLflow run": tracked.url() or tracked.run_id} if tracked.run_id else {}
    inputs = {f"{name} (SHA-256)": digest for name, digest in header["inputs"].items() if digest}
    digests = {"model": fields["model_digest"], "test set": fields["test_set_digest"]}
    return {
        **run,
        **{f"{name} (SHA-256)": digest for name, digest in digests.items()},
        **inputs,
        **header["versions"],
        "precision of this evaluation": fields["precision"],
    }


def _log_metrics(tracked: Run, scores: dict[str, Any], temperature: float) -> None:
    """Log each split's figures under ``<split>.<metric>``, those of the scaled probabilities with ``.scaled``."""
    values: dict[str, float] = {"temperature": temperature}
    for split, score in scores.items():
        intervals = {name: score[name] for name in METRICS}
        intervals |= {f"{name}.scaled": interval for name, interval in score["temperature_scaled"].items()}
        for name, interval in intervals.items():
            values |= {
                f"{split}.{name}{suffix}": interval[key]
                for key, suffix in (("value", ""), ("low", ".low"), ("high", ".high"))
                if interval[key] is not None
            }
        for kind in ("recall", "precision", "f1"):
            values |= {
                f"{split}.{kind}.{expression}": entry[kind]
                for expression, entry in score["per_class"].items()
                if entry[kind] is not None
            }
    tracked.log_metrics(values)


def _log_files(
    tracked: Run, folder: str, artifacts: dict[str, str], pages: dict[str, str], pictures: dict[str, bytes]
) -> None:
    for name, artifact in artifacts.items():
        tracked.log_folder(artifact, folder=f"{folder}/{name}")
    for name, path in pages.items():  # KFP's own names of these files have no ending
        tracked.log_bytes(Path(path).read_bytes(), name=name, folder=folder)
    for caption, picture in pictures.items():
        tracked.log_bytes(picture, name=f"{caption.lower().replace(' ', '_')}.png", folder=folder)


def _describe(header: dict[str, Any], scores: dict[str, Any], temperature: float) -> str:
    test = scores["test"]
    before, after = (part["expected_calibration_error"]["value"] for part in (test, test["temperature_scaled"]))
    return (
        f"The test split has {test['n']:,} faces. Kept is epoch {header['selected_epoch']}, chosen on "
        f"validation ({header['settings']['select']}; {scores['val']['n']:,} faces). A temperature of "
        f"{temperature:.2f}, fitted on validation, takes the calibration error from {before:.3f} to {after:.3f}."
    )


def _result(part: SplitFaces, probability: NDArray[np.float64], score: dict[str, Any], evaluation: str) -> Result:
    curve = mean_roc_curve(part.target, probability)
    false_rate, true_rate = (list(map(float, rates)) for rates in curve) if curve else ([0.0, 1.0], [0.0, 1.0])
    return Result(
        scalars={
            f"test_{name}": float(score[name]["value"]) for name in METRICS if score[name]["value"] is not None
        },
        classes=list(EXPRESSIONS),
        confusion_matrix=score["confusion_matrix"],
        # A mean over classes has no threshold of its own; KFP's chart wants a falling number, not infinity.
        roc_curve=(false_rate, true_rate, [1.0 - rate for rate in false_rate]),
        evaluation=evaluation,
    )


def _table(score: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name in METRICS:
        value, low, high = (score[name][key] for key in ("value", "low", "high"))
        shown = "not defined" if value is None else f"{value:.4f}"
        rows.append((name, shown, "" if low is None else f"[{low:.4f}, {high:.4f}]"))
    return rows


def _markdown(score: dict[str, Any], tracked: Run) -> str:
    lines = [f"| {name} | {value} | {interval} |" for name, value, interval in _table(score)]
    header = f"## Test split, {score['n']:,} faces\n\n| metric | value | 95 % interval |\n|---|---:|---|\n"
    return header + "\n".join(lines) + "\n" + run_note(tracked)
