"""KFP interface of the step that sets runs side by side."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Markdown, Output

from components.images import image


@dsl.component(base_image=image("compare_runs"), install_kfp_package=False)
def compare_runs(
    runs: list,
    comparison: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    resamples: int = 2000,
    seed: int = 0,
    metrics_digests: list = [],  # noqa: B006 (KFP reads the default, the step does not change it)
):
    """Set models side by side with the published figures, with intervals and paired tests.

    Reads MLflow runs (their evaluation artifacts), or folders that evaluate wrote. All must share a test set.
    Writes comparison/: report.html, report.md, comparison.csv, comparison.json.
    Exit codes: 0 done, 2 something to mend (one line says what).
    Example: python -m components.compare_runs --runs out/eval --output-dir out/compare

    Args:
        runs: Ids of MLflow runs, or output folders of evaluate, in the order in which they are shown.
        resamples: Bootstrap resamples behind each interval of a difference; 100 or more.
        seed: Seed of the bootstrap.
        metrics_digests: Digests of the runs' metrics, in the same order; they make cached results follow
            the metrics, which a run's id does not. Set by the pipeline.

    Returns:
        comparison: Report, table and figures as files.
        report: The report as one page.
        summary: The report's tables.
    """
    from affectflow.steps import run_step
    from components.compare_runs.step import run

    run_step(
        run,
        runs=runs,
        comparison=comparison.path,
        report=report.path,
        summary=summary.path,
        resamples=resamples,
        seed=seed,
        metrics_digests=metrics_digests,
    )
