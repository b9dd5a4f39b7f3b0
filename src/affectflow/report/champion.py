"""Which model is the champion: the best on validation, if it beats the one before it on the same test set."""

from collections.abc import Sequence
from dataclasses import dataclass

from affectflow.errors import SettingsError, what_got_wanted
from affectflow.metrics import LOWER_IS_BETTER, METRICS, paired_difference
from affectflow.report.comparison import in_points
from affectflow.report.runs import FINISHED, ScoredRun, align_runs


@dataclass(frozen=True)
class Decision:
    """Whether the candidate replaces the champion, and why in words."""

    promote: bool
    words: str


def choose_candidate(runs: Sequence[ScoredRun], metric: str) -> ScoredRun | None:
    """Return the finished run with the best validation metric; the first of equals, None where none has it.

    Test figures play no part in the choice, so that they stay an honest estimate of the chosen model.

    Args:
        runs: finished and failed ones.
        metric: of :data:`affectflow.metrics.METRICS`.

    Raises:
        SettingsError: there is no such metric.
    """
    if metric not in METRICS:
        raise SettingsError(
            what_got_wanted("--champion-metric", got=metric, wanted=f"one of {', '.join(METRICS)}", do="name one")
        )
    valued = [(run, value) for run in runs if (value := _val(run, metric)) is not None]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return max(valued, key=lambda pair: sign * pair[1])[0] if valued else None


def decide(
    candidate: ScoredRun, champion: ScoredRun | None, metric: str, *, resamples: int = 2000, seed: int = 0
) -> Decision:
    """Decide by a paired bootstrap on the shared test set, by group, whether a candidate is better.

    Args:
        candidate: the run chosen by :func:`choose_candidate`.
        champion: the one before it; None where there is none.
        metric: by which they are compared on the test set.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: runs whose predictions are faulty.
    """
    chosen = f"{candidate.name} is the best here by validation {metric} ({_val(candidate, metric) or 0:.4f})"
    if champion is None:
        return Decision(True, f"{chosen}. There was no champion before it.")
    if champion.run_id and champion.run_id == candidate.run_id:
        return Decision(False, f"{chosen}. It is the champion already.")
    if champion.test_set_digest != candidate.test_set_digest:
        return Decision(
            False,
            f"{chosen}. The champion stays {champion.name}: it was tested on another test set (digest "
            f"{champion.test_set_digest}, here {candidate.test_set_digest}), so the two cannot be compared.",
        )
    test_set, (ours, theirs) = align_runs([candidate, champion])
    difference = paired_difference(
        ours.target,
        ours.probability,
        theirs.probability,
        groups=None if test_set is None else test_set.groups,
        metrics=[metric],
        resamples=resamples,
        seed=seed,
    )[metric]
    gap, low, high = difference["difference"], difference["low"], difference["high"]
    if gap is None or low is None or high is None:
        return Decision(False, f"{chosen}. The champion stays {champion.name}: test {metric} is not defined.")
    better = high < 0 if metric in LOWER_IS_BETTER else low > 0
    evidence = f"test {metric} {in_points(gap)} points [{in_points(low)}, {in_points(high)}]"
    if better:
        return Decision(True, f"{chosen}. It replaces {champion.name}: {evidence}.")
    within = "within noise" if low <= 0 <= high else "worse"
    return Decision(False, f"{chosen}. The champion stays {champion.name}: {evidence}, {within}.")


def _val(run: ScoredRun, metric: str) -> float | None:
    if run.status != FINISHED or not run.val_metrics:
        return None
    value = run.val_metrics[metric]["value"]
    return None if value is None else float(value)
