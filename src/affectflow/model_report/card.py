"""The model card: what a model is, how good it is, and what it is and is not for. Markdown, written beside it.

After the form of Mitchell et al. 2019 (doi:10.1145/3287560.3287596).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from affectflow.data.figures import markdown_table
from affectflow.labels import EXPRESSIONS

#: Layouts in which AffectNet itself is distributed.
_AFFECTNET = frozenset({"manual", "automatic", "npy"})

_INTENDED = (
    "research on facial-expression recognition and on learning from imbalanced classes",
    "comparing losses, backbones and training recipes on a fixed test set",
    "sorting or searching collections of pictures by the displayed expression, where a wrong answer harms no one",
)
_UNFIT = (
    "telling what someone feels: the labels are annotators' impressions of a face, and a displayed expression is "
    "weak evidence of an emotion (Barrett et al. 2019, doi:10.1177/1529100619832930)",
    "decisions about people, such as hiring, marking, credit, insurance, policing, border control or diagnosis",
    "watching people at work or in education: inferring emotions there is prohibited in the European Union "
    "(Regulation (EU) 2024/1689, Article 5(1)(f), with exceptions for medicine and safety)",
    "identifying people, or judging a person by how often the model errs on them",
    "any use on people who have not agreed to it",
)


def model_card(
    model: Mapping[str, Any],
    *,
    dataset: Mapping[str, Any],
    counts: Mapping[str, Sequence[int]],
    test: Mapping[str, Any],
) -> str:
    """Return the card of a model as Markdown; equal inputs give equal text.

    Args:
        model: header of the ``model/`` artifact.
        dataset: header of the ``faces/`` artifact.
        counts: split → faces by expression, in code order.
        test: the test split's part of ``metrics.json``.
    """
    parts = [
        f"# Model card: {model['backbone']} · {model['pretrained']} · {model['loss']} · seed {model['seed']}\n",
        _about(model),
        "## Data\n",
        _data(dataset, counts),
        "## Metrics\n",
        _metrics(test),
        "## Limits\n",
        _limits(test, counts),
        "## Intended use\n",
        _bullets(_INTENDED),
        "## Unfit use\n",
        _bullets(_UNFIT),
        "## Licences\n",
        _licences(model, dataset),
    ]
    return "\n".join(parts)


def _about(model: Mapping[str, Any]) -> str:
    start = "trained from scratch" if model["pretrained"] == "none" else f"fine-tuned from {model['pretrained']}"
    return (
        f"A {model['backbone']} with a feature layer of {model['feature_dim']} and {len(model['classes'])} "
        f"outputs, {start} with the loss `{model['loss']}` at {model['image_size']} px; kept is epoch "
        f"{model['selected_epoch']} of {model['settings']['epochs']} ({model['settings']['select']}). It takes "
        f"one upright face, cut out as in the training data, and gives a probability for each of "
        f"{', '.join(model['classes'])}. The method is that of Ngo & Yoon 2020 (doi:10.3390/s20092639).\n"
    )


def _data(dataset: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> str:
    rows = [(name, *(counts[split][code] for split in counts)) for code, name in enumerate(EXPRESSIONS)]
    rows.append(("all", *(sum(counts[split]) for split in counts)))
    set_aside = sum(dataset["quarantined"].values())
    return (
        f"{dataset['faces']:,} faces{', drawn by a program' if dataset.get('synthetic') else ''} (layout "
        f"`{dataset['layout']}`, digest `{dataset['digest'][:12]}`); {set_aside:,} more could not be used. Faces "
        f"of the same content never stand in two splits.\n\n" + markdown_table(("expression", *counts), rows)
    )


def _metrics(test: Mapping[str, Any]) -> str:
    names = [name for name, entry in test.items() if isinstance(entry, dict) and "low" in entry]
    rows = [(name, _number(test[name]["value"]), _interval(test[name])) for name in names]
    classes = [
        (name, entry["support"], *(_number(entry[kind]) for kind in ("recall", "precision", "f1")))
        for name, entry in test["per_class"].items()
    ]
    return (
        f"On {test['n']:,} test faces, with 95 % bootstrap intervals over groups of equal content; chance is "
        f"{1 / len(EXPRESSIONS):.3f} for UAR. One training run: other seeds are not in the intervals.\n\n"
        + markdown_table(("metric", "value", "95 % interval"), rows)
        + "\n"
        + markdown_table(("expression", "faces", "recall", "precision", "F1"), classes)
    )


def _limits(test: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> str:
    train = counts["train"]
    rarest = min(range(len(train)), key=lambda code: train[code])
    recalls = {name: entry["recall"] for name, entry in test["per_class"].items() if entry["recall"] is not None}
    worst = min(recalls, key=lambda name: recalls[name])
    return _bullets(
        (
            f"It finds {worst} least often: {recalls[worst]:.0%} of the test faces that show it.",
            f"The rarest expression, {EXPRESSIONS[rarest]}, has {train[rarest]:,} training faces; "
            f"the most frequent has {max(train):,}.",
            "Nothing is known of how its errors differ by age, gender, skin colour or culture: labels do not say.",
            "The same person may stand in several splits where the data does not name people.",
            "Eight classes are all it knows: any other face, and what is no face, is given one of them.",
        )
    )


def _licences(model: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    if dataset.get("synthetic"):
        data = "The faces are drawings that this project made; they are free to use under Apache-2.0."
    elif dataset["layout"] in _AFFECTNET:
        data = (
            "The faces come in AffectNet's layout. AffectNet is given for research under an agreement with its "
            "makers and may not be passed on; whether a model trained on it may be is for that agreement to say."
        )
    else:
        data = "The licence of the faces is not known to this project: ask where they come from before sharing."
    weights = (
        ""
        if model["pretrained"] == "none"
        else f" The pre-trained weights ({model['pretrained']}) have terms of their own."
    )
    return f"{data}{weights} The code is under Apache-2.0.\n"


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _interval(entry: Mapping[str, float | None]) -> str:
    low, high = entry["low"], entry["high"]
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
