"""KFP interface of the step that plans which models of the paper are trained."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components.images import image


@dsl.component(base_image=image("plan_models"), install_kfp_package=False)
def plan_models(
    summary: Output[Markdown],
    rows: str = "1-20",
    seeds: str = "0",
    weights_vggface2: str = "",
    weights_imagenet: str = "",
    backbone_map: str = "{}",
    backbone_args: str = "{}",
    learning_rate_scratch: float = 0.01,
    learning_rate_pretrained: float = 0.001,
    batch_size_scratch: int = 30,
    batch_size_pretrained: int = 36,
    weights_vggface2_digest: str = "",
    weights_imagenet_digest: str = "",
    settings: dict = {},  # noqa: B006 (KFP reads the default, the step does not change it)
    images: list = [],  # noqa: B006
) -> list:  # KFP's local loops look for an output without a name of its own
    """Plan the models of Tables 5 and 6 that are trained: the chosen rows, once for each seed.

    Refuses, before anything else starts, rows that the paper does not have and rows without the weights file that
    they start from. Writes the list of models: row, seed, backbone, backbone_args, pretrained, weights,
    weights_digest, loss, learning_rate, batch_size, and plan_key, under which a comparison finds the model's evaluation in MLflow.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.plan_models --rows 6-10 --weights-vggface2 FILE --output-dir out/plan

    Args:
        rows: Numbers of the paper's models, 1 to 20, e.g. 6-10,20.
        seeds: Seeds of the trainings, each of which trains all rows, e.g. 0-4 or 0,7.
        weights_vggface2: File of weights pre-trained on VGGFace2, here or s3://bucket/key, from which rows 6 to 10 start.
        weights_imagenet: File of weights pre-trained on ImageNet, here or s3://bucket/key, from which rows 16 to 20 start.
        backbone_map: Backbones to train in place of the paper's, as JSON, e.g. {"resnet50": "resnet18"}; the report
            says so.
        backbone_args: Further arguments of every backbone, as JSON; those in a weights file's metadata are taken anyway.
        learning_rate_scratch: Initial learning rate of rows 1 to 5 and 11 to 15; above 0. The paper: 0.01.
        learning_rate_pretrained: Initial learning rate of rows 6 to 10 and 16 to 20; above 0. The paper: 0.001.
        batch_size_scratch: Images a step in rows 1 to 5 and 11 to 15; 2 or more. The paper: 30.
        batch_size_pretrained: Images a step in rows 6 to 10 and 16 to 20; 2 or more. The paper: 36.
        weights_vggface2_digest: SHA-256 of weights_vggface2, checked when it is loaded; set by the launcher.
        weights_imagenet_digest: SHA-256 of weights_imagenet, checked when it is loaded; set by the launcher.
        settings: All that decides a result beside this step's own settings; set by the pipeline.
        images: Images of the steps that make a result, which name their code; set by the pipeline.

    Returns:
        summary: The planned models as a table.
        Output: The planned models, seed by seed.
    """
    from affectflow.steps import run_step
    from components.plan_models.step import run

    return run_step(
        run,
        summary=summary.path,
        rows=rows,
        seeds=seeds,
        weights_vggface2=weights_vggface2,
        weights_imagenet=weights_imagenet,
        backbone_map=backbone_map,
        backbone_args=backbone_args,
        learning_rate_scratch=learning_rate_scratch,
        learning_rate_pretrained=learning_rate_pretrained,
        batch_size_scratch=batch_size_scratch,
        batch_size_pretrained=batch_size_pretrained,
        weights_vggface2_digest=weights_vggface2_digest,
        weights_imagenet_digest=weights_imagenet_digest,
        settings=settings,
        images=images,
    )
