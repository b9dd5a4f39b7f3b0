"""Stages of a backbone, and freezing the first of them (Ngo & Yoon 2020, Table 2: Stages 1–3)."""

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from affectflow.errors import what_got_wanted

NUM_STAGES = 5


@dataclass(frozen=True)
class FrozenStages:
    """What :func:`freeze_stages` froze.

    Attributes:
        stages: how many, 0–5.
        parameters: names of the frozen parameters.
        batch_norms: names of the BatchNorm modules in the frozen stages.
    """

    stages: int
    parameters: tuple[str, ...]
    batch_norms: tuple[str, ...]


def stage_of_modules(backbone: nn.Module) -> dict[str, int]:
    """Return the stage of each module of a timm model: 1–5, and one more for what follows the last.

    Stage n ends with the module of ``feature_info[n - 1]``, in the order in which modules are registered. For
    ``se_resnet50`` and ``resnet50`` these are conv1, conv2_x, …, conv5_x. A model with fewer levels has as many
    stages, the first of them with its stem: ConvNeXt and Swin 4, LeViT 3. Of more than five, five count.

    Returns:
        name → stage, for modules that hold parameters or buffers of their own, and for those without children.

    Raises:
        ValueError: the model names no stages, or not in order.
    """
    ends = _ends(backbone)
    names = [name for name, _ in backbone.named_modules()]
    if not ends or any(end not in names for end in ends):
        raise _no_stages(backbone, "no feature levels")
    # The last module within each end (itself if it has no children), in order of registration.
    last = [max(i for i, name in enumerate(names) if _within(name, end)) for end in ends]
    if last != sorted(set(last)):
        raise _no_stages(backbone, "feature levels that are not in order")
    stages = {}
    for i, (name, module) in enumerate(backbone.named_modules()):
        own = list(module.parameters(recurse=False)) or list(module.buffers(recurse=False))
        if own or not list(module.children()):
            stages[name] = 1 + sum(i > end for end in last)
    return stages


def stage_of_parameters(backbone: nn.Module) -> dict[str, int]:
    """Return the stage of each parameter of a timm model, as :func:`stage_of_modules`.

    Raises:
        ValueError: as :func:`stage_of_modules`.
    """
    stages = stage_of_modules(backbone)
    return {name: stages[name.rpartition(".")[0]] for name, _ in backbone.named_parameters()}


def freeze_stages(backbone: nn.Module, stages: int) -> FrozenStages:
    """Freeze the first stages of a backbone and let the others train.

    Frozen parameters take no gradient; since nothing before them does either, autograd records nothing there.
    What a model has after its last stage is never frozen. BatchNorm's mode is the caller's, see
    :class:`~affectflow.models.model.ExpressionModel`.

    Args:
        backbone: a timm model.
        stages: how many, 0–5; the paper's is 3 with pre-trained weights.

    Raises:
        ValueError: another number, or a model without so many stages (not asked where stages is 0).
    """
    if not 0 <= stages <= NUM_STAGES:
        wanted = f"0 to {NUM_STAGES}"
        raise ValueError(
            what_got_wanted("frozen stages", got=str(stages), wanted=wanted, do="pass 3 for the paper's")
        )
    if stages == 0:
        backbone.requires_grad_(True)
        return FrozenStages(0, (), ())
    of_module, of_parameter = stage_of_modules(backbone), stage_of_parameters(backbone)
    if stages > (there := len(_ends(backbone))):
        raise ValueError(
            what_got_wanted(
                f"stages of {type(backbone).__name__} to freeze",
                got=str(stages),
                wanted=f"0 to {there}, as it has {there} (timm's feature_info)",
                do="freeze fewer",
            )
        )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(of_parameter[name] > stages)
    return FrozenStages(
        stages,
        tuple(name for name, stage in of_parameter.items() if stage <= stages),
        tuple(
            name
            for name, stage in of_module.items()
            if stage <= stages and isinstance(backbone.get_submodule(name), _BatchNorm)
        ),
    )


def _ends(backbone: nn.Module) -> list[str]:
    """Return the module with which each stage ends."""
    infos = getattr(backbone, "feature_info", None) or ()
    return [info["module"] for info in infos][:NUM_STAGES]


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(parent + ".")


def _no_stages(backbone: nn.Module, got: str) -> ValueError:
    return ValueError(
        what_got_wanted(
            f"stages of {type(backbone).__name__}",
            got=got,
            wanted="stages in order of depth (timm's feature_info)",
            do="freeze 0 stages, or take another backbone, e.g. resnet50",
        )
    )
