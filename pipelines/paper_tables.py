"""Pipeline ``paper_tables``: the models of the paper's Tables 5 and 6, side by side with the published figures."""

import os
from typing import Any

from kfp import dsl

from components.compare_runs.component import compare_runs
from components.compute_class_weights.component import compute_class_weights
from components.evaluate.component import evaluate as evaluate_model
from components.fine_tune.component import fine_tune
from components.images import image
from components.ingest_affectnet.component import ingest_affectnet
from components.plan_models.component import plan_models
from components.split_dataset.component import split_dataset
from pipelines.parameters import PARALLEL_VARIABLE, parameters_of
from pipelines.pod_settings import POD_PARAMETERS, on_cluster

Settings = dict[str, Any]

#: What the plan says of each model, under ``fine_tune``'s own names.
_PLANNED = (
    "row",
    "seed",
    "backbone",
    "backbone_args",
    "pretrained",
    "weights",
    "weights_digest",
    "loss",
    "learning_rate",
    "batch_size",
)
#: The steps whose code decides a model's figures.
_DECIDING_STEPS = ("ingest_affectnet", "split_dataset", "compute_class_weights", "fine_tune", "evaluate")


@dsl.pipeline(name="paper-tables", display_name="Train the models of Tables 5 and 6")
@parameters_of(
    filled=[
        *("plan_settings", "plan_images", "evaluate_plan_key", "compare_runs", "compare_plan"),
        *(f"train_{name}" for name in _PLANNED),
    ],
    plan=plan_models,
    data=ingest_affectnet,
    split=split_dataset,
    train=fine_tune,
    evaluate=evaluate_model,
    compare=compare_runs,
    pod=POD_PARAMETERS,
)
def paper_tables(
    plan: Settings,
    data: Settings,
    split: Settings,
    train: Settings,
    evaluate: Settings,
    compare: Settings,
    pod: Settings,
) -> str:
    """Fine-tune and score the paper's models, all 20 or the chosen rows, once a seed; then compare them.

    One model's failure does not lose the others: the report shows it as failed, and the pipeline ends as failed.
    A rerun does only what is missing. Returns the folder of the report.
    """
    planned = plan_models(
        # KFP writes these values into JSON text as they are, so none of them may hold a quotation mark.
        settings={"data": data, "split": split, "train": train, "evaluate": evaluate},
        images=[image(step) for step in _DECIDING_STEPS],
        **plan,
    )
    planned.set_display_name("Plan the models")
    on_cluster(planned, "plan_models", pod)
    planned.set_caching_options(False)  # it looks for the weights files, which a cached answer would not

    ingested = ingest_affectnet(**data).after(planned)
    ingested.set_display_name("Ingest faces")
    on_cluster(ingested, "ingest_affectnet", pod)

    drawn = split_dataset(faces=ingested.outputs["faces"], **split)
    drawn.set_display_name("Split 500/500 per class")
    on_cluster(drawn, "split_dataset", pod)

    weighed = compute_class_weights(splits=drawn.outputs["splits"])
    weighed.set_display_name("Compute class weights")
    on_cluster(weighed, "compute_class_weights", pod)

    with dsl.ParallelFor(
        planned.outputs["Output"], name="models", parallelism=int(os.environ.get(PARALLEL_VARIABLE) or 0) or None
    ) as model:
        trained = fine_tune(
            faces=ingested.outputs["faces"],
            splits=drawn.outputs["splits"],
            class_weights=weighed.outputs["class_weights"],
            **{name: getattr(model, name) for name in _PLANNED},
            **train,
        )
        trained.set_display_name("Fine-tune")
        on_cluster(trained, "fine_tune", pod)

        scored = evaluate_model(
            faces=ingested.outputs["faces"],
            splits=drawn.outputs["splits"],
            model=trained.outputs["model"],
            history=trained.outputs["history"],
            plan_key=model.plan_key,
            **evaluate,
        )
        scored.set_display_name("Evaluate")
        on_cluster(scored, "evaluate", pod)

    # It takes nothing from the loop, whose outputs are lost with its first failure: it finds the models in MLflow.
    compared = compare_runs(runs=[], plan=planned.outputs["Output"], **compare)
    compared.after(scored).ignore_upstream_failure()
    compared.set_display_name("Compare with the published figures")
    on_cluster(compared, "compare_runs", pod)
    compared.set_caching_options(False)  # its arguments do not change when a failed model is trained after all
    return compared.outputs["report_folder"]
