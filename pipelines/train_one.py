"""Pipeline ``train_one``: faces in, one trained, scored and compared model out."""

from typing import Any

from kfp import dsl

from components.compare_runs.component import compare_runs
from components.compute_class_weights.component import compute_class_weights
from components.evaluate.component import evaluate as evaluate_model
from components.fine_tune.component import fine_tune
from components.ingest_affectnet.component import ingest_affectnet
from components.split_dataset.component import split_dataset
from pipelines.parameters import parameters_of
from pipelines.pod_settings import POD_PARAMETERS, on_cluster

Settings = dict[str, Any]


@dsl.pipeline(name="train-one", display_name="Train one model")
@parameters_of(
    filled=["evaluate_plan_key", "compare_runs", "compare_plan"],
    data=ingest_affectnet,
    split=split_dataset,
    train=fine_tune,
    evaluate=evaluate_model,
    compare=compare_runs,
    pod=POD_PARAMETERS,
)
def train_one(
    data: Settings, split: Settings, train: Settings, evaluate: Settings, compare: Settings, pod: Settings
) -> str:
    """Fine-tune and score one model; with a VGGFace2 weights file the defaults are the paper's model 10.

    Returns the address of the model's evaluation in MLflow.
    """
    ingested = ingest_affectnet(**data)
    ingested.set_display_name("Ingest faces")
    on_cluster(ingested, "ingest_affectnet", pod)

    drawn = split_dataset(faces=ingested.outputs["faces"], **split)
    drawn.set_display_name("Split 500/500 per class")
    on_cluster(drawn, "split_dataset", pod)

    weighed = compute_class_weights(splits=drawn.outputs["splits"])
    weighed.set_display_name("Compute class weights")
    on_cluster(weighed, "compute_class_weights", pod)

    trained = fine_tune(
        faces=ingested.outputs["faces"],
        splits=drawn.outputs["splits"],
        class_weights=weighed.outputs["class_weights"],
        **train,
    )
    trained.set_display_name("Fine-tune")
    on_cluster(trained, "fine_tune", pod)

    scored = evaluate_model(
        faces=ingested.outputs["faces"],
        splits=drawn.outputs["splits"],
        model=trained.outputs["model"],
        history=trained.outputs["history"],
        **evaluate,
    )
    scored.set_display_name("Evaluate")
    on_cluster(scored, "evaluate", pod)

    compared = compare_runs(runs=[scored.outputs["evaluation"]], **compare)
    compared.set_display_name("Compare with the published figures")
    on_cluster(compared, "compare_runs", pod)
    return scored.outputs["evaluation"]
