"""Give a pipeline the parameters of its steps, so that names, defaults and descriptions have one home."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kfp.dsl.base_component import BaseComponent
from kfp.dsl.structures import InputSpec

#: How many models a pipeline trains at a time; empty for all of them. Read when the pipeline is compiled.
PARALLEL_VARIABLE = "AFFECTFLOW_PARALLEL_MODELS"

_PYTHON_TYPES = {"String": str, "Integer": int, "Float": float, "Boolean": bool, "List": list, "Dict": dict}


def parameters_of(
    *, filled: Collection[str] = (), **steps: BaseComponent | Mapping[str, InputSpec]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a pipeline function take every setting of its steps, each as ``<group>_<setting>``.

    The function itself gets one dictionary a group, ready to be passed on to the step, and returns one text.
    KFP's form shows parameters sorted by name, so those of a group stand together.

    Args:
        filled: parameters that the pipeline fills itself, so that its user is not asked for them.
        steps: group → component, e.g. ``train=fine_tune`` for ``train_epochs``, ``train_loss``, …; or the inputs
            of a group that is no component's.
    """

    def decorate(pipeline: Callable[..., Any]) -> Callable[..., Any]:
        settings = [
            (group, name, spec)
            for group, step in steps.items()
            for name, spec in (step if isinstance(step, Mapping) else step.component_spec.inputs or {}).items()
            if spec.type in _PYTHON_TYPES and f"{group}_{name}" not in filled
        ]

        def with_settings(*values: Any) -> Any:
            groups: dict[str, dict[str, Any]] = {group: {} for group in steps}
            for (group, name, _), value in zip(settings, values, strict=True):
                groups[group][name] = value
            return pipeline(**groups)

        parameters = [
            inspect.Parameter(
                f"{group}_{name}",
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=_PYTHON_TYPES[spec.type],
                default=spec.default if spec.optional else inspect.Parameter.empty,
            )
            for group, name, spec in settings
        ]
        parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
        order = [parameter.name for parameter in parameters]
        settings.sort(key=lambda setting: order.index(f"{setting[0]}_{setting[1]}"))
        descriptions = "\n".join(
            f"    {group}_{name}: {' '.join(spec.description.split())}" for group, name, spec in settings
        )
        with_settings.__name__ = pipeline.__name__
        with_settings.__doc__ = f"{inspect.getdoc(pipeline)}\n\nArgs:\n{descriptions}\n"
        with_settings.__signature__ = inspect.Signature(parameters, return_annotation=str)  # type: ignore[attr-defined]
        return with_settings

    return decorate
