"""KFP interface of the step that weighs the classes."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Output

from components.images import image


@dsl.component(base_image=image("compute_class_weights"), install_kfp_package=False)
def compute_class_weights(
    splits: Input[Dataset],
    class_weights: Output[Artifact],
    summary: Output[Markdown],
):
    """Weigh every expression by its rarity in the training split: W = N_min / N (the paper's Eq. 6).

    Reads splits/. Writes class_weights/: class_weights.json (formula, classes, counts, weights, in code order).
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.compute_class_weights --splits out/split/splits --output-dir out/weights

    Args:
        splits: Splits of split_dataset.

    Returns:
        class_weights: A weight for every expression.
        summary: Counts and weights as a table.
    """
    from affectflow.steps import run_step
    from components.compute_class_weights.step import run

    run_step(run, splits=splits.path, class_weights=class_weights.path, summary=summary.path)
