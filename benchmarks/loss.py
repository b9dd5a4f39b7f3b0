"""Time of the joint loss: forward, backward and the step of the centers, at two sizes.

Beside weighted cross-entropy alone, and beside the obvious implementation of the same loss (a Python loop over
classes, the distances between centers as a (C, C, D) tensor); all three give the gradient of logits and features.
What the loss adds to a training step is its time over that of a step of SE-ResNet-50 at its fastest: batch 36,
Stages 1 to 3 frozen, channels last, bfloat16, all cores.

    python -m benchmarks.loss --json out.json [--quick]
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from affectflow.losses import build_loss
from affectflow.models import ExpressionModel, create_backbone
from affectflow.training.distributed import training_device
from affectflow.training.memory import keep_freed_memory
from benchmarks.fine_tune_step import BACKBONE, BATCH_SIZE, FROZEN_STAGES, IMAGE_SIZE
from benchmarks.measure import Report, Turn, in_turns, main

CLASSES, WIDTH = 8, 512
SIZES = (36, 4096)
#: Calls a turn, so that a turn is long beside the clock's grain.
CALLS = {36: 100, 4096: 10}


def measure(report: Report) -> None:
    """Time all sides in turns, at both sizes."""
    device, threads = training_device(), torch.get_num_threads()
    torch.set_num_threads(1)  # the small size is what trains, and more threads only wait for each other there
    rounds = 5 if report.quick else 15
    joint_of: dict[int, float] = {}
    for size in SIZES:
        logits, features, target, weights = batch(size, device)
        ours, plain = joint(weights, device), obvious(weights, device)
        check_equal(ours, plain, logits, features, target)
        sides = {
            "joint": lambda: ours(logits, features, target),  # noqa: B023
            "cross_entropy": lambda: cross_entropy(weights, logits, target),  # noqa: B023
            "obvious": lambda: plain(logits, features, target),  # noqa: B023
        }
        turns = {name: calls(work, CALLS[size], device) for name, work in sides.items()}
        seconds = in_turns(turns, rounds=rounds)
        joint_of[size], alone, loop = (float(np.median(seconds[name])) for name in turns)
        report.figures[f"seconds_at_{size}"] = {name: float(np.median(turns)) for name, turns in seconds.items()}
        report.add_ratio(
            f"obvious_{size}",
            f"joint loss, forward + backward + centers at ({size}, {WIDTH}), beside the obvious implementation",
            seconds["obvious"],
            seconds["joint"],
            note=f"{joint_of[size] * 1e6:,.0f} beside {loop * 1e6:,.0f} µs",
        )
        report.add_ratio(
            f"cross_entropy_{size}",
            f"its time at ({size}, {WIDTH}) over that of weighted cross-entropy",
            seconds["joint"],
            seconds["cross_entropy"],
            note=f"cross-entropy {alone * 1e6:,.0f} µs",
        )
    torch.set_num_threads(threads)
    step = step_seconds(device, 1 if report.quick else 3)
    report.figures["step_seconds"] = step
    report.add(
        "share_of_step",
        f"the joint loss as a share of a training step of batch {BATCH_SIZE}",
        100 * joint_of[BATCH_SIZE] / step,
        unit="%",
        at_most=2.0,
        note=f"the step takes {step:.3g} s",
    )


Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def joint(weights: Tensor, device: torch.device) -> Step:
    """Return our joint loss's part of a step."""
    loss = build_loss(
        "weighted_cluster+weighted_softmax",
        class_weights=weights.tolist(),
        num_classes=CLASSES,
        feature_dim=WIDTH,
        center_step_limit=None,
        seed=0,
    ).to(device)

    def step(logits: Tensor, features: Tensor, target: Tensor) -> Tensor:
        value = loss(logits, features, target)
        value.total.backward()
        loss.step_centers(features.detach(), target)
        return value.total

    return step


def obvious(weights: Tensor, device: torch.device) -> Step:
    """Return the same from the paper's formulas as one would write them down, a class at a time."""
    centers = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0)).to(device)

    def step(logits: Tensor, features: Tensor, target: Tensor) -> Tensor:
        spread = (centers[None] - centers[:, None]).pow(2).sum(dim=2).sum(dim=1) + 1.0
        cluster = features.new_zeros(())
        for code in range(CLASSES):
            members = features[target == code]
            if len(members):
                distance = (members - centers[code]).pow(2).sum()
                cluster = cluster + 0.5 * weights[code] * distance / spread[code]
        cluster = cluster / weights[target].sum()
        total = functional.cross_entropy(logits, target, weight=weights) + cluster
        total.backward()
        with torch.no_grad():
            moved = centers.clone()
            for code in range(CLASSES):
                members = features[target == code]
                if len(members):
                    moved[code] += weights[code] * (members - centers[code]).sum(dim=0) / spread[code]
            centers.copy_(moved)
        return total

    return step


def cross_entropy(weights: Tensor, logits: Tensor, target: Tensor) -> None:
    """Do forward and backward of weighted cross-entropy alone."""
    functional.cross_entropy(logits, target, weight=weights).backward()


def check_equal(ours: Step, plain: Step, logits: Tensor, features: Tensor, target: Tensor) -> None:
    """End the benchmark where the two sides are not the same loss, in value or gradient, over three steps."""
    for _ in range(3):
        results = []
        for step in (ours, plain):
            logits.grad = features.grad = None
            total = step(logits, features, target)
            results.append((total.detach(), logits.grad, features.grad))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def batch(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, features (both take a gradient), target and class weights."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(size, CLASSES, generator=random).to(device).requires_grad_()
    features = torch.randn(size, WIDTH, generator=random).relu().to(device).requires_grad_()
    target = torch.randint(CLASSES, (size,), generator=random).to(device)
    weights = torch.linspace(0.05, 1.0, CLASSES).to(device)
    return logits, features, target, weights


def calls(work: Callable[[], object], number: int, device: torch.device) -> Turn:
    """Return a turn of ``number`` calls that counts the mean seconds of one."""

    def turn() -> float:
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(number):
            work()
        synchronize(device)
        return (time.perf_counter() - begun) / number

    return turn


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_seconds(device: torch.device, steps: int) -> float:
    """Return the seconds of our training step with cross-entropy, without loading; the median."""
    if device.type == "cpu":
        keep_freed_memory()
    model = ExpressionModel(create_backbone(BACKBONE)).to(device, memory_format=torch.channels_last)
    model.freeze(FROZEN_STAGES)
    model.train()
    images = torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    target = torch.randint(CLASSES, (BATCH_SIZE,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits, _ = model(images)
        functional.cross_entropy(logits.float(), target).backward()

    turn = calls(step, 1, device)
    return float(np.median([turn() for _ in range(1 + steps)][1:]))


if __name__ == "__main__":
    sys.exit(main("loss", __doc__, measure))
