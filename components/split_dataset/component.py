"""KFP interface of the step that draws the training, validation and test sets."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from components.images import image


@dsl.component(base_image=image("split_dataset"), install_kfp_package=False)
def split_dataset(
    faces: Input[Dataset],
    splits: Output[Dataset],
    summary: Output[Markdown],
    policy: str = "paper",
    val_per_class: int = 500,
    test_per_class: int = 500,
    seed: int = 0,
):
    """Draw the same number of faces of every expression for validation and for test; the rest trains.

    Policy paper follows the paper (Table 3): all lists are pooled, 500 and 500 of each class are drawn. With policy
    official AffectNet's own validation list is the test set; faces of the training list with the content of a test
    face are then left out. Faces of the same content never stand in two splits, and the result depends on the
    policy and the seed alone, not on the order of rows.
    Reads faces/. Writes splits/: splits.parquet (image_id, group, expression, split) and splits.json.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.split_dataset --faces out/ingest/faces --output-dir out/split

    Args:
        faces: Dataset of ingest_affectnet.
        policy: How the test set is found: paper (pool and draw) or official (the list that the dataset holds out).
        val_per_class: Faces of every expression for validation; 1 or more. The paper: 500.
        test_per_class: Faces of every expression for test, with policy paper; 1 or more. The paper: 500.
        seed: Seed of the draw; 0 or more.

    Returns:
        splits: Which face stands in which split.
        summary: Faces by expression and split.
    """
    from affectflow.steps import run_step
    from components.split_dataset.step import run

    run_step(
        run,
        faces=faces.path,
        policy=policy,
        val_per_class=val_per_class,
        test_per_class=test_per_class,
        seed=seed,
        splits=splits.path,
        summary=summary.path,
    )
