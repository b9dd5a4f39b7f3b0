"""KFP interface of the step that scores a model."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.images import image


@dsl.component(base_image=image("evaluate"), install_kfp_package=False)
def evaluate(
    faces: Input[Dataset],
    splits: Input[Dataset],
    model: Input[Model],
    predictions: Output[Dataset],
    metrics: Output[Artifact],
    scalars: Output[Metrics],
    confusion_matrix: Output[ClassificationMetrics],
    roc_curve: Output[ClassificationMetrics],
    figures: Output[HTML],
    model_card: Output[Markdown],
    summary: Output[Markdown],
    batch_size: int = 64,
    resamples: int = 2000,
    precision: str = "float32",
    workers: int = 0,
    seed: int = 0,
    plan_key: str = "",
    history: Input[Dataset] = None,
) -> NamedTuple("Outputs", [("evaluation", str)]):  # type: ignore[valid-type]
    """Score a model on the validation and test splits, with intervals.

    Accuracy, UAR, macro F1, Cohen's kappa, Krippendorff's alpha, areas under ROC and precision-recall curves,
    calibration error and Brier score (as trained, and with a temperature fitted on validation), each with a 95 %
    bootstrap interval; recall, precision and F1 by expression; confusion matrix as counts and as shares.
    Reads faces/, splits/, model/. Writes predictions/: predictions.parquet (image_id, group, split, target,
    probability); metrics/: metrics.json. Logs all of it to the model's MLflow run, in a folder of its own.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.evaluate --faces out/ingest/faces --splits out/split/splits
    --model out/train/model --output-dir out/eval

    Args:
        faces: Dataset of ingest_affectnet.
        splits: Splits of split_dataset.
        model: Model of fine_tune.
        batch_size: Images at a time, 1 or more; changes speed and memory alone.
        resamples: Bootstrap resamples behind each interval; 100 to 100000.
        precision: float32, bfloat16 or float16 (float16 on GPUs alone).
        workers: Processes that load images, 0 to 128; 0 means one a core, at most 8.
        seed: Seed of the bootstrap; 0 or more.
        history: History of fine_tune, for the report's learning curves and centers; may be left out.
        plan_key: Key under which a comparison finds this evaluation in MLflow; set by the pipeline.

    Returns:
        predictions: Probabilities of every validation and test face.
        metrics: Every metric with its interval, by split.
        scalars: The test metrics, for the KFP UI.
        confusion_matrix: Of the test split, for the KFP UI.
        roc_curve: Of the test split, averaged over expressions, for the KFP UI.
        figures: The model's report as one page: headline, expressions, confusion with its faces, calibration, curves, training, settings.
        model_card: What the model is, how good, and what it is and is not for.
        summary: The test metrics as a table.
        evaluation: Address of this evaluation in MLflow, or the folder of metrics where it is untracked.
    """
    import json
    from pathlib import Path

    from affectflow.steps import run_step
    from components.evaluate.step import run

    result = run_step(
        run,
        faces=faces.path,
        splits=splits.path,
        model=model.path,
        predictions=predictions.path,
        metrics=metrics.path,
        figures=figures.path,
        model_card=model_card.path,
        history=history.path if history else "",
        summary=summary.path,
        batch_size=batch_size,
        resamples=resamples,
        precision=precision,
        workers=workers,
        seed=seed,
        plan_key=plan_key,
    )
    for name, value in result.scalars.items():
        scalars.log_metric(name, value)
    confusion_matrix.log_confusion_matrix(result.classes, result.confusion_matrix)
    roc_curve.log_roc_curve(*result.roc_curve)
    for artifact in (scalars, confusion_matrix, roc_curve):
        Path(artifact.path).write_text(json.dumps(artifact.metadata, indent=2))
    return (result.evaluation,)
