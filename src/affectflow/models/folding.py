"""Frozen convolutions with the BatchNorm that follows folded in: the same numbers to rounding, in one pass."""

import contextlib
import functools
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

#: How far outputs may differ from those without folding, as a share of the largest.
TOLERANCE = 1e-4


@contextlib.contextmanager
def folded_batchnorms(model: nn.Module, images: Tensor) -> Iterator[int]:
    """Let frozen convolutions and their BatchNorm layers compute as one, within the context.

    Parameters, buffers and their names stay as they are: only what ``forward`` does changes. Folded are layers
    that take no gradient and are in evaluation mode while the model is in training mode, where the BatchNorm
    layer's input is the convolution's output. Where the model's outputs would differ, nothing is folded.

    Args:
        model: with its weights, which must not change in folded layers.
        images: (1, 3, H, W), normalised; any picture will do.

    Yields:
        how many BatchNorm layers are folded.
    """
    was_training = model.training
    model.train()
    pairs = _pairs(model, images)
    try:
        before = _outputs(model, images)
        for conv, norm in pairs:
            _fold(conv, norm)
        if not _close(before, _outputs(model, images)):
            _unfold(pairs)
            pairs = []
        model.train(was_training)
        yield len(pairs)
    finally:
        _unfold(pairs)


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Return the frozen convolutions of which a frozen BatchNorm layer takes the output."""
    convs = [module for module in model.modules() if type(module) is nn.Conv2d and _is_frozen(module)]
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and _is_frozen(module)
        and not module.training
        and module.track_running_stats
    ]
    made: dict[nn.Module, Tensor] = {}
    taken: dict[nn.Module, Tensor] = {}

    def note(conv: nn.Module, _: object, output: Tensor) -> None:
        made[conv] = output

    def look(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken[norm] = inputs[0]

    with contextlib.ExitStack() as hooks:
        for conv in convs:
            hooks.callback(conv.register_forward_hook(note).remove)
        for norm in norms:
            hooks.callback(norm.register_forward_pre_hook(look).remove)
        _outputs(model, images)
    return [(conv, norm) for conv in convs for norm in norms if conv in made and made[conv] is taken.get(norm)]


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return what a model says in evaluation mode, so that no statistic changes."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        outputs = model(images)
    finally:
        for module, mode in modes:
            module.training = mode
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _close(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(
        bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
        for one, other in zip(before, after, strict=True)
    )


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Shadow both ``forward`` methods on the instances, where the state dict does not see it."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    fused = fuse_conv_bn_weights(conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias)
    weight, bias = (parameter.detach() for parameter in fused)
    conv.forward = functools.partial(conv._conv_forward, weight=weight, bias=bias)  # type: ignore[method-assign]
    norm.forward = functools.partial(_rest, norm)  # type: ignore[method-assign]


def _rest(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    """Do what timm's layers do beside normalising: drop and activate."""
    for name in ("drop", "act"):
        part = getattr(norm, name, None)
        if isinstance(part, nn.Module):
            inputs = part(inputs)
    return inputs


def _unfold(pairs: list[tuple[nn.Conv2d, _BatchNorm]]) -> None:
    for pair in pairs:
        for module in pair:
            module.__dict__.pop("forward", None)
