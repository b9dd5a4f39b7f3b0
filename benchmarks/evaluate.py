"""Time and memory of bootstrap intervals, beside a plain loop over scikit-learn and krippendorff.

Both sides run in one process, in turns, on the same resamples, and must give the same values. The loop is timed
on a few resamples and scaled to all. The large case runs in a process of its own, whose peak memory is reported.

    python -m benchmarks.evaluate --json out.json [--quick]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from affectflow.metrics import bootstrap_intervals, resample_metrics

#: The paper's six metrics and UAR.
NAMES = ("accuracy", "f1_macro", "cohen_kappa", "krippendorff_alpha", "average_precision", "roc_auc", "uar")
WANTED_RATIO = 40.0
WANTED_BYTES = 2e9
CLASSES = 8
SEED = 0


def main() -> int:
    """Run both cases, print them, write the JSON; exit code 1 when a figure misses what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--quick", action="store_true", help="smaller sets, to see that the benchmark runs")
    parser.add_argument(
        "--large-case", nargs=2, type=int, metavar=("SAMPLES", "RESAMPLES"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.large_case:
        print(json.dumps(large_case(*arguments.large_case)))
        return 0
    figures = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "speed": speed_case(500, 200, rounds=2) if arguments.quick else speed_case(4000, 2000, rounds=5),
        "memory": in_own_process(50_000, 20) if arguments.quick else in_own_process(1_000_000, 200),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    missed = figures["speed"]["ratio"] < WANTED_RATIO or figures["memory"]["peak_bytes"] > WANTED_BYTES
    return int(missed and not arguments.quick)


def speed_case(samples: int, resamples: int, *, rounds: int, loop_each: int = 4) -> dict[str, Any]:
    """Time ours (all resamples) and the loop (``loop_each`` of them) in turns, ``rounds`` times."""
    target, probability = predictions(samples)
    loop = plain_metrics()
    generator = np.random.default_rng(SEED)
    ours_seconds, loop_seconds, looped = [], [], []
    bootstrap_intervals(target, probability, metrics=NAMES, resamples=2)  # imports are not timed on either side
    one_resample(loop, target, probability)
    for _ in range(rounds):
        start = time.perf_counter()
        bootstrap_intervals(target, probability, metrics=NAMES, resamples=resamples, seed=SEED)
        ours_seconds.append(time.perf_counter() - start)
        rows = [generator.integers(0, samples, samples) for _ in range(loop_each)]
        start = time.perf_counter()
        looped += [one_resample(loop, target[chosen], probability[chosen]) for chosen in rows]
        loop_seconds.append(time.perf_counter() - start)
    ours = float(np.median(ours_seconds))
    scaled = float(np.median(loop_seconds)) / loop_each * resamples
    drawn = resample_metrics(target, probability, metrics=NAMES, resamples=len(looped), seed=SEED).drawn
    gap = max(float(np.abs(drawn[name] - [values[name] for values in looped]).max()) for name in NAMES)
    if gap > 1e-12:
        raise SystemExit(f"the two sides differ by {gap:g}: they are not the same metrics")
    return {
        "samples": samples,
        "resamples": resamples,
        "metrics": list(NAMES),
        "ours_seconds": ours,
        "loop_seconds_scaled": scaled,
        "loop_resamples_timed": len(looped),
        "ratio": scaled / ours,
        "wanted_ratio": WANTED_RATIO,
        "largest_gap_of_values": gap,
    }


def large_case(samples: int, resamples: int) -> dict[str, Any]:
    """Time all metrics with intervals on a large set, in this process, and read its peak memory."""
    target, probability = predictions(samples)
    start = time.perf_counter()
    bootstrap_intervals(target, probability, resamples=resamples, seed=SEED)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "samples": samples,
        "resamples": resamples,
        "seconds": seconds,
        "peak_bytes": peak,
        "wanted_bytes": WANTED_BYTES,
    }


def in_own_process(samples: int, resamples: int) -> dict[str, Any]:
    """Run :func:`large_case` in a fresh process, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--large-case", str(samples), str(resamples)]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return figures


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
    sys.exit(main())
