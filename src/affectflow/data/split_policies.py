"""How faces are drawn into training, validation and test, so that no content stands in two of them.

Ngo & Yoon (2020, Section 4.1 and Table 3) pool AffectNet's two lists and draw 500 faces of each expression for
validation and 500 for test; the rest trains. Here the draw depends on the seed and the content alone.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from affectflow.errors import DataError, what_got_wanted
from affectflow.labels import EXPRESSIONS, NUM_EXPRESSIONS

SPLITS = ("train", "val", "test")

#: Stands for the split of a face that is left out of all.
LEFT_OUT = ""

_CONFLICT = -1


class _Groups(NamedTuple):
    """Faces by group: the group of every face (N,), and each group's order, size and expression (G,)."""

    of_face: NDArray[np.intp]
    order: NDArray[np.intp]
    size: NDArray[np.int64]
    expression: NDArray[np.int64]


def draw_splits(
    groups: NDArray[Any],
    expression: NDArray[np.integer[Any]],
    *,
    val_per_class: int,
    test_per_class: int,
    seed: int,
) -> NDArray[np.str_]:
    """Return the split of every face: exactly n of each expression in val and in test, the rest in train.

    Groups are walked in the order of a seeded hash of their names, test first, so neither the order of rows nor
    ``val_per_class`` changes the test set. A group whose faces have several labels trains.

    Args:
        groups: name of every face's group, (N,).
        expression: code of every face, 0–7, (N,).
        val_per_class: faces of each expression for validation, 0 or more. The paper: 500.
        test_per_class: faces of each expression for test, 0 or more. The paper: 500.
        seed: of the draw.

    Shape:
        returns (N,), each ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: an expression has fewer groups than ``val_per_class + test_per_class + 1``, or their sizes do
            not add up; names it, and the largest n that fits every expression.
    """
    grouped = _group(np.asarray(groups), np.asarray(expression, dtype=np.int64), seed)
    _check_counts(grouped, val_per_class, test_per_class)
    split_of_group = np.zeros(len(grouped.size), dtype=np.int64)
    for code in range(NUM_EXPRESSIONS):
        free = grouped.order[grouped.expression[grouped.order] == code]
        for split, wanted in (("test", test_per_class), ("val", val_per_class)):
            chosen = _take(grouped.size[free], wanted)
            # Something must be left to train on, now and after the validation set.
            if chosen is None or chosen.all():
                raise DataError(
                    what_got_wanted(
                        f"split {split}, expression {EXPRESSIONS[code]}",
                        got=f"{len(free)} groups of the same content whose sizes do not add up",
                        wanted=f"exactly {wanted} faces, and some left to train on",
                        do=f"lower --{split}-per-class",
                    )
                )
            split_of_group[free[chosen]] = SPLITS.index(split)
            free = free[~chosen]
    names: NDArray[np.str_] = np.array(SPLITS)[split_of_group[grouped.of_face]]
    return names


def draw_official_splits(
    groups: NDArray[Any],
    expression: NDArray[np.integer[Any]],
    held_out: NDArray[np.bool_],
    *,
    val_per_class: int,
    seed: int,
) -> NDArray[np.str_]:
    """Return the split of every face where the dataset's own held-out list is the test set.

    The validation set is drawn from the other faces as :func:`draw_splits` does. Of these, the ones that share a
    group with a test face are left out of all splits: the test set stays the official one, and nothing leaks.

    Args:
        groups: name of every face's group, (N,).
        expression: code of every face, 0–7, (N,).
        held_out: whether it stands in a held-out list, (N,).
        val_per_class: faces of each expression for validation, 0 or more.
        seed: of the draw.

    Shape:
        returns (N,), each ``"train"``, ``"val"``, ``"test"``, or ``""`` for left out.

    Raises:
        DataError: an expression has no held-out face, or too few others, as in :func:`draw_splits`.
    """
    groups, expression = np.asarray(groups), np.asarray(expression, dtype=np.int64)
    counts = np.bincount(expression[held_out], minlength=NUM_EXPRESSIONS)
    if not counts.all():
        raise DataError(
            what_got_wanted(
                "policy official",
                got=f"no held-out face of {EXPRESSIONS[int(counts.argmin())]}",
                wanted="a validation list with every expression",
                do="pass --policy paper, which draws the test set",
            )
        )
    split: NDArray[np.str_] = np.full(len(groups), LEFT_OUT, dtype="<U5")
    split[held_out] = "test"
    free = ~np.isin(groups, np.unique(groups[held_out]))
    split[free] = draw_splits(
        groups[free], expression[free], val_per_class=val_per_class, test_per_class=0, seed=seed
    )
    return split


def largest_n(groups: NDArray[Any], expression: NDArray[np.integer[Any]]) -> int:
    """Return the largest n for which val and test of n faces per expression leave a group to train on, or 0."""
    free = _free_groups(_group(np.asarray(groups), np.asarray(expression, dtype=np.int64), seed=0))
    return max(0, (int(free.min()) - 1) // 2)


def _group(groups: NDArray[Any], expression: NDArray[np.int64], seed: int) -> _Groups:
    of_face, uniques = pd.factorize(groups, sort=True)
    size = np.bincount(of_face, minlength=len(uniques))
    lowest = np.full(len(uniques), NUM_EXPRESSIONS)
    highest = np.full(len(uniques), -1)
    np.minimum.at(lowest, of_face, expression)
    np.maximum.at(highest, of_face, expression)
    names = [f"{seed}:{name}".encode() for name in uniques]
    hashes = np.array([hashlib.sha256(name).digest()[:8] for name in names], dtype="S8")
    keys = hashes.view(">u8") if len(hashes) else np.zeros(0, dtype=np.uint64)
    return _Groups(
        of_face=of_face,
        order=np.argsort(keys, kind="stable"),
        size=size,
        expression=np.where(lowest == highest, lowest, _CONFLICT),
    )


def _free_groups(grouped: _Groups) -> NDArray[np.int64]:
    """Return for every expression the groups of that expression alone, (8,)."""
    free = grouped.expression[grouped.expression != _CONFLICT]
    counts: NDArray[np.int64] = np.bincount(free, minlength=NUM_EXPRESSIONS)
    return counts


def _check_counts(grouped: _Groups, val_per_class: int, test_per_class: int) -> None:
    """Check that there is a group for each face that is wanted: copies of few contents would test little."""
    free = _free_groups(grouped)
    wanted = val_per_class + test_per_class + 1
    if free.min() >= wanted:
        return
    code = int(free.argmin())
    drawn = [f"--{split}-per-class" for split, n in (("val", val_per_class), ("test", test_per_class)) if n]
    largest = (int(free.min()) - 1) // max(1, len(drawn))
    raise DataError(
        what_got_wanted(
            f"expression {EXPRESSIONS[code]}",
            got=f"{free[code]:,} groups of the same content and of this label alone",
            wanted=f"{wanted:,} ({val_per_class} for val, {test_per_class} for test, 1 or more to train on)",
            do=f"pass {' and '.join(drawn)} {largest} or less (the most that fits every expression)"
            if largest > 0
            else "add faces of this expression",
        )
    )


def _take(sizes: NDArray[np.int64], wanted: int) -> NDArray[np.bool_] | None:
    """Choose groups, in order where that works, whose sizes add up to exactly ``wanted``."""
    chosen = np.zeros(len(sizes), dtype=bool)
    left = wanted
    for place, size in enumerate(sizes.tolist()):
        if left == 0:
            break
        if size <= left:
            chosen[place] = True
            left -= size
    return chosen if left == 0 else _take_exactly(sizes, wanted)


def _take_exactly(sizes: NDArray[np.int64], wanted: int) -> NDArray[np.bool_] | None:
    """Solve the subset sum, large groups first, so that small ones are left for the next split."""
    order = np.argsort(-sizes, kind="stable")
    # first[s]: the step (from 1) at which sum s was first reached; 0 where it was not.
    first = np.zeros(wanted + 1, dtype=np.int64)
    reached = np.zeros(wanted + 1, dtype=bool)
    reached[0] = True
    for step, size in enumerate(sizes[order].tolist(), start=1):
        if reached[wanted] or size > wanted:
            continue
        new = np.zeros_like(reached)
        new[size:] = reached[: wanted + 1 - size]
        new &= ~reached
        first[new] = step
        reached |= new
    if not reached[wanted]:
        return None
    chosen = np.zeros(len(sizes), dtype=bool)
    left = wanted
    while left:
        place = order[first[left] - 1]
        chosen[place] = True
        left -= int(sizes[place])
    return chosen
