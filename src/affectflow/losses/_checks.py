"""Argument checks that all losses share; each raises ``ValueError`` with one line.

Shapes and types are always checked. Values (the range of the targets, the sign of the class weights) are read
only on the CPU: on an accelerator each reading would make the host wait for the device at every step.
"""

import math
from typing import Any

import torch
from torch import Tensor

from affectflow.errors import what_got_wanted

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_batch(name: str, values: Tensor, target: Tensor, num_classes: int) -> None:
    """Check ``values`` (N, …) floating and ``target`` (N,) integer in [0, num_classes), with N ≥ 1.

    Args:
        name: what the caller calls ``values``, e.g. ``"features"``.
        values: logits or features of a batch.
        target: class codes.
        num_classes: C; the range is checked for targets on the CPU only.

    Raises:
        ValueError: one of them has another shape, type, length or range.
    """
    if values.ndim != 2 or not values.is_floating_point() or not values.shape[0]:
        raise _wrong(name, _describe(values), "(N, D) floating with N ≥ 1", "pass a whole batch")
    if target.ndim != 1 or target.dtype not in _INTEGERS:
        raise _wrong("target", _describe(target), "(N,) int64", "pass one class code a sample")
    if target.shape[0] != values.shape[0]:
        got = f"{values.shape[0]} {name} and {target.shape[0]} targets"
        raise _wrong(f"{name} and target", got, "as many of each", "pass both of the same batch")
    if _readable(target):
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= num_classes:
            wanted = f"codes from 0 to {num_classes - 1}"
            raise _wrong("target", f"codes from {low} to {high}", wanted, "map the labels, or raise num_classes")


def check_centers(centers: Tensor, features: Tensor) -> None:
    """Check ``centers`` (C, D) floating, with the D of ``features``.

    Raises:
        ValueError: they have another shape or type.
    """
    if centers.ndim != 2 or not centers.is_floating_point() or centers.shape[1] != features.shape[-1]:
        wanted = f"(C, {features.shape[-1]}) floating"
        raise _wrong("centers", _describe(centers), wanted, "give each class one center of the features' width")


def check_class_weights(class_weights: Tensor, num_classes: int) -> None:
    """Check ``class_weights`` (C,) floating, each finite and above 0 (values on the CPU only).

    Raises:
        ValueError: the length is not C, or a weight is zero, negative, infinite or NaN.
    """
    do = "compute them from the training split, e.g. with compute_class_weights"
    if class_weights.shape != (num_classes,) or not class_weights.is_floating_point():
        raise _wrong("class_weights", _describe(class_weights), f"({num_classes},) floating", do)
    if _readable(class_weights):
        good = torch.isfinite(class_weights) & (class_weights > 0)
        if not bool(good.all()):
            bad = int(torch.nonzero(~good)[0])
            got = f"{float(class_weights[bad]):g} for class {bad}"
            raise _wrong("class_weights", got, "a finite weight above 0 for each class", do)


def check_number(name: str, value: float, *, low: float, above: bool) -> None:
    """Check a finite number that is at least ``low``, or above it.

    Raises:
        ValueError: it is NaN, infinite or too small.
    """
    if not math.isfinite(value) or value < low or (above and value == low):
        raise _wrong(
            name, f"{value:g}", f"a finite number {'above' if above else 'of at least'} {low:g}", "raise it"
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise _wrong(name, repr(value), f"one of {', '.join(choices)}", "pass one of them")


def _readable(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _wrong(what: str, got: str, wanted: str, do: str) -> ValueError:
    return ValueError(what_got_wanted(what, got=got, wanted=wanted, do=do))
