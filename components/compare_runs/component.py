"""KFP interface of the step that sets runs side by side."""

from typing import NamedTuple

from kfp import dsl
from kfp.dsl import HTML, Artifact, Markdown, Output

from components.images import image


@dsl.component(base_image=image("compare_runs"), install_kfp_package=False)
def compare_runs(
    comparison: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    runs: list = [],  # noqa: B006 (KFP reads the default, the step does not change it)
    plan: list = [],  # noqa: B006
    resamples: int = 2000,
    seed: int = 0,
    registered_model: str = "affectflow",
    champion_metric: str = "uar",
) -> NamedTuple("Outputs", [("report_folder", str)]):  # type: ignore[valid-type]
    """Set models side by side with the published figures, with intervals and paired tests.

    Reads MLflow runs (their evaluation artifacts), or folders that evaluate wrote. All must share a test set.
    Writes comparison/: report.html, report.md, comparison.csv, comparison.json. Registers the best model by
    validation in MLflow, with the alias champion, where it beats the champion before it on the same test set.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.compare_runs --runs out/eval --output-dir out/compare

    Args:
        runs: Ids of MLflow runs (their newest evaluation), addresses of evaluations (runs:/ID/evaluation/KEY), or
            output folders of evaluate, in the order in which they are shown.
        plan: Models that plan_models planned; those that did not get as far as an evaluation are shown as failed.
        resamples: Bootstrap resamples behind each interval of a difference; 100 to 100000.
        seed: Seed of the bootstrap; 0 or more.
        registered_model: Name in MLflow's model registry under which the champion is kept; empty to register none.
        champion_metric: Validation metric by which the best model is chosen, e.g. uar, accuracy or f1_macro.

    Returns:
        comparison: Report, table and figures as files.
        report: The report as one page.
        summary: The report's tables.
        report_folder: Where the comparison was written.
    """
    from affectflow.steps import run_step
    from components.compare_runs.step import run

    folder = run_step(
        run,
        runs=runs,
        plan=plan,
        comparison=comparison.path,
        report=report.path,
        summary=summary.path,
        resamples=resamples,
        seed=seed,
        registered_model=registered_model,
        champion_metric=champion_metric,
    )
    return (folder,)
