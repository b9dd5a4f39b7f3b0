"""Time and memory of bootstrap intervals, beside a plain loop over scikit-learn and krippendorff.

Both sides run in one process, in turns, on the same resamples, and must give the same values. The loop is timed
on a few resamples and scaled to all. The large case runs in a process of its own, whose peak memory is reported.

    python -m benchmarks.evaluate --json out.json [--quick]
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import krippendorff
import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from affectflow.metrics import bootstrap_intervals, resample_metrics
from benchmarks.measure import Report, in_turns, main, own_process, peak_bytes, wall

#: The paper's six metrics and UAR.
NAMES = ("accuracy", "f1_macro", "cohen_kappa", "krippendorff_alpha", "average_precision", "roc_auc", "uar")
CLASSES = 8
SEED = 0


def measure(report: Report) -> None:
    """Run both cases."""
    samples, resamples, rounds = (500, 200, 2) if report.quick else (4000, 2000, 5)
    speed_case(report, samples, resamples, rounds=rounds)
    sizes = (50_000, 20) if report.quick else (1_000_000, 200)
    figures = own_process("benchmarks.evaluate", "large", *sizes)
    report.add(
        "memory",
        f"peak of one evaluation of {sizes[0]:,} predictions with intervals",
        figures["peak_bytes"] / 1e9,
        unit="GB",
        at_most=2.0,
        note=f"{figures['seconds']:.3g} s for {sizes[1]:,} resamples",
    )


def speed_case(report: Report, samples: int, resamples: int, *, rounds: int, loop_each: int = 4) -> None:
    """Time ours (all resamples) and the loop (``loop_each`` of them) in turns, and compare their values."""
    target, probability = predictions(samples)
    loop = plain_metrics()
    generator = np.random.default_rng(SEED)
    looped: list[dict[str, float]] = []
    bootstrap_intervals(target, probability, metrics=NAMES, resamples=2)  # imports are not timed on either side
    one_resample(loop, target, probability)

    def run_loop() -> float:
        rows = [generator.integers(0, samples, samples) for _ in range(loop_each)]
        begun = time.perf_counter()
        looped.extend(one_resample(loop, target[chosen], probability[chosen]) for chosen in rows)
        return (time.perf_counter() - begun) / loop_each * resamples

    def run_ours() -> None:
        bootstrap_intervals(target, probability, metrics=NAMES, resamples=resamples, seed=SEED)

    seconds = in_turns({"ours": wall(run_ours), "loop": run_loop}, rounds=rounds, warm_up=False)
    drawn = resample_metrics(target, probability, metrics=NAMES, resamples=len(looped), seed=SEED).drawn
    gap = max(float(np.abs(drawn[name] - [values[name] for values in looped]).max()) for name in NAMES)
    if gap > 1e-12:
        raise SystemExit(f"the two sides differ by {gap:g}: they are not the same metrics")
    ours, scaled = (float(np.median(seconds[name])) for name in ("ours", "loop"))
    report.figures["speed"] = {"seconds": seconds, "metrics": NAMES, "largest_gap_of_values": gap}
    report.add_ratio(
        "speed",
        f"{len(NAMES)} metrics with intervals of {samples:,} predictions, beside a loop over the libraries",
        seconds["loop"],
        seconds["ours"],
        at_least=40.0,
        note=f"{ours:.3g} beside {scaled:,.3g} s for {resamples:,} resamples",
    )


def large_case(samples: str, resamples: str) -> dict[str, Any]:
    """Time all metrics with intervals on a large set, in this process, and read its peak memory."""
    target, probability = predictions(int(samples))
    begun = time.perf_counter()
    bootstrap_intervals(target, probability, resamples=int(resamples), seed=SEED)
    return {"seconds": time.perf_counter() - begun, "peak_bytes": peak_bytes()}


def predictions(samples: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return targets and probabilities of about 60 % accuracy, some of them tied."""
    generator = np.random.default_rng(SEED)
    target = generator.integers(0, CLASSES, samples)
    logits = generator.normal(size=(samples, CLASSES))
    logits[np.arange(samples), target] += 1.8
    shares = np.exp(logits.round(2))
    return target, shares / shares.sum(axis=1, keepdims=True)


def plain_metrics() -> dict[str, Callable[..., float]]:
    """Return the metrics as one would call them from the libraries."""
    return {
        "accuracy": lambda y, p, chosen: sk.accuracy_score(y, chosen),
        "f1_macro": lambda y, p, chosen: sk.f1_score(y, chosen, average="macro"),
        "cohen_kappa": lambda y, p, chosen: sk.cohen_kappa_score(y, chosen),
        "krippendorff_alpha": lambda y, p, chosen: krippendorff.alpha(
            np.stack([y, chosen]), level_of_measurement="nominal"
        ),
        "average_precision": lambda y, p, chosen: sk.average_precision_score(y, p, average="macro"),
        "roc_auc": lambda y, p, chosen: sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "uar": lambda y, p, chosen: sk.balanced_accuracy_score(y, chosen),
    }


def one_resample(
    metrics: dict[str, Callable[..., float]], target: npt.NDArray[np.int64], probability: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Return every metric of one resample by its library."""
    chosen = probability.argmax(axis=1)
    return {name: float(metric(target, probability, chosen)) for name, metric in metrics.items()}


if __name__ == "__main__":
    sys.exit(main("evaluate", __doc__, measure, {"large": large_case}))
