"""What the report says, in order, as sections that HTML and Markdown share."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from affectflow.html import Cell
from affectflow.metrics import class_names
from affectflow.metrics.bootstrap import Interval
from affectflow.metrics.drawing import png_bytes
from affectflow.metrics.figures import (
    Estimate,
    History,
    compared_learning_curves,
    confusion_matrix_figure,
    interval_figure,
    learning_curves,
    recall_figure,
)
from affectflow.report.comparison import (
    BaselineComparison,
    Comparison,
    MetricDifference,
    ScoredModel,
    in_points,
)
from affectflow.report.published import (
    PUBLISHED_METRICS,
    PUBLISHED_ROWS,
    PUBLISHED_TEST_SIZE,
    PublishedRow,
    published_row,
)
from affectflow.report.runs import FAILED, FINISHED, ScoredRun

#: Metrics of the report's tables → heading. The first six are the paper's.
COLUMNS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "f1_macro": "F1",
    "cohen_kappa": "kappa",
    "krippendorff_alpha": "alpha",
    "average_precision": "AUC-PR",
    "roc_auc": "AUC",
    "uar": "UAR",
}

_UAR_FIRST = ("uar", *(name for name in COLUMNS if name != "uar"))
_TABLES = {5: "Table 5: SE-ResNet-50", 6: "Table 6: ResNet-50"}
_STATUS_TONES = {FINISHED: "", FAILED: "bad"}
_CURVES = ("epoch", "train_loss", "val_loss", "val_accuracy", "val_uar")


@dataclass
class Table:
    """A table of text; the first ``text_columns`` columns are names, the others numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


@dataclass
class Section:
    """A heading with paragraphs, then a table, then images as (PNG, caption), large or side by side."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    table: Table | None = None
    images: list[tuple[bytes, str]] = field(default_factory=list)
    side_by_side: bool = False


def build_sections(comparison: Comparison, champion: str = "") -> list[Section]:
    """Return the report's sections, leaving out those with nothing to say.

    Args:
        comparison: what is compared.
        champion: which model is the registry's champion and why, or empty.
    """
    sections = [
        _summary(comparison, champion),
        *(_paper_table(comparison, table) for table in _TABLES),
        _other_models(comparison),
        _differences(comparison),
        _tests(comparison),
        _intervals(comparison),
        _recalls(comparison),
        _learning_curves(comparison),
        _confusion_matrices(comparison),
        _diagnostics(comparison),
        _runs(comparison),
    ]
    return [section for section in sections if section is not None]


def _summary(comparison: Comparison, champion: str) -> Section:
    test_set = comparison.test_set
    if test_set is None:
        return Section("Summary", ["Every run failed: there is nothing to compare."])
    size = len(test_set.target)
    unit = "samples" if test_set.groups is None else f"{len(np.unique(test_set.groups)):,} groups of samples"
    paragraphs = [
        f"Test set: {size:,} faces, digest {test_set.digest[:16] or 'unknown'}. Intervals hold 95 % of "
        f"{comparison.resamples:,} bootstrap resamples of its {unit} (seed {comparison.seed}): they speak of "
        f"other test images, not of other trainings. ± is the deviation over seeds. All figures are in %.",
    ]
    paragraphs += [_sentence(pair) for pair in comparison.baselines]
    if not comparison.baselines:
        paragraphs.append("No model stands beside its baseline here, so there is no difference to test.")
    failed = [scored.model.label for scored in comparison.models if scored.model.failed_seeds]
    if failed:
        paragraphs.append(f"Failed in part or whole: {'; '.join(failed)}.")
    if champion:
        paragraphs.append(f"Champion: {champion}")
    return Section("Summary", paragraphs)


def _sentence(pair: BaselineComparison) -> str:
    parts = []
    for metric in ("uar", "accuracy"):
        difference = pair.differences[metric]
        parts.append(f"{COLUMNS[metric]} {_change(difference)} points, {difference.verdict}")
    seeds = _seed_remark(pair.differences["uar"])
    return f"{pair.model} against {pair.baseline_loss}: {'; '.join(parts)}.{seeds}"


def _seed_remark(difference: MetricDifference) -> str:
    seeds = difference.seeds
    if seeds is None:
        return ""
    if seeds["low"] is None or seeds["high"] is None:
        return f" UAR over {seeds['n']} seeds: {in_points(seeds['difference'])} in each."
    interval = f"[{in_points(seeds['low'])}, {in_points(seeds['high'])}]"
    word = (
        "which holds 0: another seed could turn it" if seeds["low"] <= 0 <= seeds["high"] else "which leaves out 0"
    )
    return f" UAR over {seeds['n']} seeds, in pairs: {in_points(seeds['difference'])} {interval}, {word}."


def _paper_table(comparison: Comparison, table: int) -> Section | None:
    found = [scored for scored in comparison.models if _table_of(scored) == table]
    if not found:
        return None
    header = ["no.", "model", "figures", *COLUMNS.values()]
    rows = []
    for scored in found:
        run = scored.model.first
        row = published_row(run.number or 0)
        ours, theirs = _folded(_name(run)), _folded(_name(row))
        rows.append([str(row.number), ours, _figures(scored), *_values(scored)])
        rows.append(["", theirs if theirs != ours else "", "published", *_published_values(row)])
    paragraphs = _deviations(comparison, found)
    return Section(_TABLES[table], paragraphs, Table(header, rows, text_columns=3))


def _deviations(comparison: Comparison, found: Sequence[ScoredModel]) -> list[str]:
    """Say where ours is not what was published, so that nobody reads more into a gap than it holds."""
    size = 0 if comparison.test_set is None else len(comparison.test_set.target)
    notes = [
        f"The published figures are one training each on {PUBLISHED_TEST_SIZE:,} AffectNet faces, without "
        f"intervals; ours are on {size:,} faces of another draw or dataset."
    ]
    swapped: dict[str, list[str]] = {}
    for scored in found:
        run, row = scored.model.first, published_row(scored.model.first.number or 0)
        for our, their in ((run.backbone, row.backbone), (run.pretrained, row.pretrained), (run.loss, row.loss)):
            if our != their:
                swapped.setdefault(f"{our} for {their}", []).append(str(row.number))
    notes += [f"Not the published model: {swap} in row {', '.join(rows)}." for swap, rows in swapped.items()]
    return notes


def _other_models(comparison: Comparison) -> Section | None:
    found = [scored for scored in comparison.models if _table_of(scored) is None]
    if not found:
        return None
    rows = [[_folded(scored.model.label), _figures(scored), *_values(scored)] for scored in found]
    return Section("Other models", [], Table(["model", "figures", *COLUMNS.values()], rows, text_columns=2))


def _differences(comparison: Comparison) -> Section | None:
    if not comparison.baselines:
        return None
    rows = [
        [
            _folded(pair.model),
            pair.baseline_loss,
            *(Cell(_change(pair.differences[name], "\n"), _tone(pair.differences[name])) for name in _UAR_FIRST),
        ]
        for pair in comparison.baselines
    ]
    paragraphs = [
        "Difference to the model of the same backbone and pre-training whose loss lacks the added part, in points "
        "of %, from resamples that both share; over several seeds it is the mean. Colour marks a difference whose "
        "interval leaves out 0 and that stays after Holm's correction over the column."
    ]
    header = ["model", "against", *(COLUMNS[name] for name in _UAR_FIRST)]
    return Section("Differences to the baseline", paragraphs, Table(header, rows, text_columns=2))


def _tests(comparison: Comparison) -> Section | None:
    if not comparison.baselines:
        return None
    header = [
        "model",
        "against",
        "UAR, in words",
        "Holm's p",
        "over seeds,\nin pairs",
        "Holm's p\n(seeds)",
        "McNemar's p\nby seed",
    ]
    rows = []
    for pair in comparison.baselines:
        uar = pair.differences["uar"]
        by_seed = ", ".join(_p_text(test["p_value"]) for test in pair.mcnemar.values())
        rows.append(
            [
                _folded(pair.model),
                pair.baseline_loss,
                Cell(uar.verdict, _tone(uar)),
                _p_text(uar.p_holm),
                _seeds_change(uar),
                "–" if uar.seeds is None else _p_text(uar.seeds_p_holm),
                by_seed or "no common seed",
            ]
        )
    paragraphs = [
        "The words and the first p-value are of the resamples above: they speak of other test images. With one "
        "seed that says something of two trained networks, not yet of two losses; a paired t-test over the seeds "
        "says whether other trainings could turn it. McNemar's test is of the predicted classes."
    ]
    return Section("Tests of the differences in UAR", paragraphs, Table(header, rows, text_columns=3))


def _intervals(comparison: Comparison) -> Section | None:
    if comparison.test_set is None:
        return None
    images = []
    for metric in ("uar", "accuracy"):
        estimates = [_estimate(scored, metric) for scored in comparison.models]
        figure = interval_figure(estimates, label=COLUMNS[metric])
        images.append((png_bytes(figure), f"{COLUMNS[metric]} with 95 % intervals"))
    return Section("Values with intervals", [], None, images)


def _estimate(scored: ScoredModel, metric: str) -> Estimate:
    number = scored.model.first.number
    published = None if number is None else published_row(number).value(metric)
    if not scored.intervals:
        return Estimate(f"{scored.model.label} (failed)", None, None, None, published)
    return Estimate(scored.model.label, **scored.intervals[metric], published=published)


def _recalls(comparison: Comparison) -> Section | None:
    found = [(scored.model.label, scored.recalls) for scored in comparison.models if scored.recalls is not None]
    if not found:
        return None
    names = class_names(len(found[0][1]))
    rows = [[label, *(_percent(float(recall)) for recall in recalls)] for label, recalls in found]
    figure = recall_figure(np.stack([recalls for _, recalls in found]), [label for label, _ in found])
    table = Table(["model", *names], rows)
    return Section("Recall by class", [], table, [(png_bytes(figure), "Recall by class")])


def _learning_curves(comparison: Comparison) -> Section | None:
    """Figure 5: one figure for each backbone and pre-training, a line a model (its first seed with a history)."""
    families: dict[str, dict[str, History]] = {}
    for scored in comparison.models:
        histories = [run.history for run in scored.model.runs if run.history is not None]
        drawable = [history for history in histories if all(name in history for name in _CURVES)]
        if drawable:
            run = scored.model.first
            family = families.setdefault(f"{run.backbone}, {run.pretrained}", {})
            family[scored.model.label if run.loss in family else run.loss] = drawable[0]
    images = []
    for name, members in families.items():
        if len(members) == 1:
            [(label, history)] = members.items()
            images.append((png_bytes(learning_curves(history)), f"{name}, {label}"))
        else:
            images.append((png_bytes(compared_learning_curves(members)), name))
    return Section("Learning curves (the paper's Figure 5)", [], None, images) if images else None


def _confusion_matrices(comparison: Comparison) -> Section | None:
    images = [
        (png_bytes(confusion_matrix_figure(scored.counts, title=scored.model.label)), scored.model.label)
        for scored in comparison.models
        if scored.counts is not None
    ]
    paragraph = "Shares of each true class, counts below; several seeds are added up."
    title = "Confusion matrices (the paper's Figure 6)"
    return Section(title, [paragraph], None, images, side_by_side=True) if images else None


def _diagnostics(comparison: Comparison) -> Section | None:
    """What the centres did: the last epoch's diagnostics of every run that has a history."""
    found = [
        (f"{scored.model.label} · seed {run.seed}", last)
        for scored in comparison.models
        for run in scored.model.runs
        if run.history is not None and (last := _last_diagnostics(run.history))
    ]
    if not found:
        return None
    columns = list(dict.fromkeys(name for _, last in found for name in last))
    table = Table(["run", *columns], [[label, *(last.get(name, "") for name in columns)] for label, last in found])
    text = (
        "The cluster term's state, distances within and between classes on the validation split, and how the "
        "centers stood to them; from the smallest to the largest class where there is one a class."
    )
    return Section("What the centers did (last epoch)", [text], table)


def _last_diagnostics(history: History) -> dict[str, str]:
    """Return the last epoch's ``cluster_state`` and ``center.<name>[.<class>]`` columns, classes as a range."""
    numbers: dict[str, list[float]] = {}
    texts: dict[str, str] = {}
    for column in history:
        prefix, _, rest = column.partition(".")
        if column == "cluster_state":
            texts["state"] = str(list(history[column])[-1])
        elif prefix == "center":
            numbers.setdefault(rest.partition(".")[0], []).append(_last(history[column]))
    for name, values in numbers.items():
        defined = [value for value in values if not np.isnan(value)]
        bounds = dict.fromkeys(f"{value:.3g}" for value in (min(defined), max(defined))) if defined else ["–"]
        texts[name.replace("_", " ")] = " to ".join(bounds)
    return texts


def _last(values: Sequence[float]) -> float:
    return float(np.asarray(values, dtype=np.float64)[-1])


def _runs(comparison: Comparison) -> Section:
    rows = [
        [
            run.name,
            scored.model.label,
            str(run.seed),
            Cell("\n".join([run.status, *textwrap.wrap(run.reason, 60)]), _STATUS_TONES[run.status]),
            run.run_id,
        ]
        for scored in comparison.models
        for run in scored.model.runs
    ]
    return Section("Runs", [], Table(["run", "model", "seed", "status", "MLflow run"], rows, text_columns=5))


def _table_of(scored: ScoredModel) -> int | None:
    number = scored.model.first.number
    return None if number is None else PUBLISHED_ROWS[number].table


def _figures(scored: ScoredModel) -> str:
    count = len(scored.model.finished)
    failed = f", {len(scored.model.failed_seeds)} failed" if scored.model.failed_seeds else ""
    if count == 0:
        return "failed"
    return ("ours" if count == 1 else f"mean of {count} seeds") + failed


def _values(scored: ScoredModel) -> list[str]:
    if not scored.intervals:
        return [Cell("failed", "bad")] * len(COLUMNS)
    return [_interval(scored.intervals[name], scored.deviations[name]) for name in COLUMNS]


def _published_values(row: PublishedRow) -> list[str]:
    return [f"{row.percent[name]:.2f}" if name in PUBLISHED_METRICS else "–" for name in COLUMNS]


def _interval(interval: Interval, deviation: float | None) -> str:
    if interval["value"] is None or interval["low"] is None or interval["high"] is None:
        return "not defined"
    spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
    return f"{100 * interval['value']:.1f}{spread}\n[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _change(difference: MetricDifference, between: str = " ") -> str:
    paired = difference.paired
    if paired["difference"] is None or paired["low"] is None or paired["high"] is None:
        return "not defined"
    return f"{in_points(paired['difference'])}{between}[{in_points(paired['low'])}, {in_points(paired['high'])}]"


def _seeds_change(difference: MetricDifference) -> str:
    seeds = difference.seeds
    if seeds is None:
        return "–"
    if seeds["low"] is None or seeds["high"] is None:
        return f"{in_points(seeds['difference'])}\nin each of {seeds['n']}"
    return f"{in_points(seeds['difference'])}\n[{in_points(seeds['low'])}, {in_points(seeds['high'])}]"


def _tone(difference: MetricDifference) -> str:
    return {"better": "good", "worse": "bad"}.get(difference.verdict, "")


def _name(model: ScoredRun | PublishedRow) -> str:
    return f"{model.backbone} · {model.pretrained} · {model.loss}"


def _folded(label: str) -> str:
    """Return a model's label in two lines, broken before its loss."""
    head, mark, tail = label.rpartition(" · ")
    return f"{head}\n{tail}" if mark else label


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return "not defined"
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
