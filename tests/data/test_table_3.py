"""Lists with AffectNet's official counts give the paper's Table 3 to the last image, and its class weights."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from face_trees import HEADER

from affectflow.data.class_weights import compute_class_weights
from affectflow.data.layouts.manual import IMAGES, LISTS
from affectflow.data.listing import Listing, list_faces
from affectflow.data.split_policies import draw_official_splits, draw_splits
from affectflow.labels import EXPRESSIONS

#: Rows of the official lists by code, 0–10.
TRAINING = (74_874, 134_416, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750, 33_088, 11_645, 82_415)
VALIDATION = (500,) * 11
#: The paper's Table 3.
ALL = [75_374, 134_915, 25_959, 14_590, 6_878, 4_303, 25_382, 4_250]
TRAIN = [74_374, 133_915, 24_959, 13_590, 5_878, 3_303, 24_382, 3_250]


def rows(counts: tuple[int, ...], name: str) -> Iterator[str]:
    codes = np.random.default_rng(len(name)).permutation(np.repeat(np.arange(11), counts)).tolist()
    without_box = codes.index(1) if name == "training" else None  # one happy face of the official list
    for number, code in enumerate(codes):
        box = "NULL,NULL,NULL,NULL" if number == without_box else "134.0,134.0,899,899"
        value = "-2" if code > 8 else "0.5"
        yield f"{number % 1000}/{name}{number}.jpg,{box},1;2,{code},{value},{value}"


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    root = tmp_path_factory.mktemp("affectnet")
    (root / IMAGES).mkdir()
    (root / LISTS).mkdir()
    for name, header, counts in (("training", [HEADER], TRAINING), ("validation", [], VALIDATION)):
        lines = "\n".join([*header, *rows(counts, name)])
        (root / LISTS / f"{name}.csv").write_text(lines + "\n", encoding="utf-8")
    begun = time.monotonic()
    listing = list_faces(root)
    assert time.monotonic() - begun < 60  # benchmarks/ingest.py measures it
    return listing


def counts(expression: np.ndarray) -> list[int]:
    return np.bincount(expression, minlength=8).tolist()


def test_the_lists_hold_the_papers_faces(listing: Listing) -> None:
    assert sum(TRAINING) == 414_800
    assert counts(np.array([face.expression for face in listing.faces])) == ALL
    assert listing.excluded == {8: 33_588, 9: 12_145, 10: 82_915}
    assert [row.reason for row in listing.quarantined] == ["bad_box"]
    assert listing.repeated == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_the_papers_policy_gives_table_3_and_the_weights_of_equation_6(listing: Listing, seed: int) -> None:
    expression = np.array([face.expression for face in listing.faces])
    groups = np.array([face.image_id for face in listing.faces])
    split = draw_splits(groups, expression, val_per_class=500, test_per_class=500, seed=seed)
    train = counts(expression[split == "train"])
    assert train == TRAIN
    assert sum(train) == 283_651
    assert counts(expression[split == "val"]) == counts(expression[split == "test"]) == [500] * 8
    weights = compute_class_weights(dict(zip(EXPRESSIONS, train, strict=True)))
    assert weights == pytest.approx([0.0437, 0.0243, 0.1302, 0.2391, 0.5529, 0.9840, 0.1333, 1.0], abs=5e-5)
    held_out = np.array([face.source_list.endswith("validation.csv") for face in listing.faces])
    assert 0 < (held_out & (split == "train")).sum() < held_out.sum(), "both lists are pooled"


def test_the_official_policy_tests_on_the_validation_list(listing: Listing) -> None:
    expression = np.array([face.expression for face in listing.faces])
    groups = np.array([face.image_id for face in listing.faces])
    held_out = np.array([face.source_list.endswith("validation.csv") for face in listing.faces])
    split = draw_official_splits(groups, expression, held_out, val_per_class=500, seed=0)
    assert ((split == "test") == held_out).all()
    assert counts(expression[split == "test"]) == [500] * 8
    assert counts(expression[split == "train"]) == TRAIN
