"""Drawn faces: AffectNet's layout and proportions, the same files for the same seed, expressions that differ."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from affectflow.data.crops import decode_image, make_crop
from affectflow.data.layouts.manual import COLUMNS, LISTS
from affectflow.data.listing import list_faces
from affectflow.data.sources import FolderSource
from affectflow.data.synthetic import AFFECTNET_COUNTS, EXPRESSION_SHAPES, class_counts, write_synthetic_affectnet
from affectflow.data.synthetic_drawing import Head, draw_face
from affectflow.labels import EXPRESSIONS


def digest(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_seeds_give_equal_files_and_other_seeds_others(tmp_path: Path) -> None:
    trees = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        write_synthetic_affectnet(tmp_path / name, images=24, seed=seed)
        trees.append(digest(tmp_path / name))
    assert trees[0] == trees[1]
    assert not set(trees[0].values()) & set(trees[2].values())


def test_the_tree_is_read_as_affectnets_own_without_a_loss(tmp_path: Path) -> None:
    write_synthetic_affectnet(tmp_path, images=200, seed=0)
    listing = list_faces(tmp_path)
    assert listing.layout == "manual"
    assert not listing.quarantined
    assert not listing.unusable
    assert listing.excluded == {8: 3, 9: 3, 10: 3}
    assert np.bincount([face.expression for face in listing.faces]).tolist() == class_counts(200)
    validation = [face.expression for face in listing.faces if "validation" in face.source_list]
    assert np.bincount(validation).tolist() == [1] * 8
    assert (tmp_path / LISTS / "training.csv").read_text().startswith(",".join(COLUMNS))
    assert "/" in (tmp_path / LISTS / "validation.csv").read_text().split(",")[0]
    for face in listing.faces[:40]:
        data = FolderSource(tmp_path).read(face.folders, face.source_path)
        stored = make_crop(data, face.box, face_size=64, margin=0.1, jpeg_quality=92)
        assert decode_image(stored.image).std() > 10
        assert face.box is not None
    assert any(face.box[2] != face.box[3] for face in listing.faces if face.box)


@pytest.mark.parametrize("images", [8, 50, 95, 100, 1500, 20_000])
def test_counts_follow_affectnets_proportions_with_a_floor(images: int) -> None:
    counts = class_counts(images)
    assert sum(counts) == images
    assert min(counts) >= min(12, images // 8)
    exact = [images * count / sum(AFFECTNET_COUNTS) for count in AFFECTNET_COUNTS]
    if min(exact) >= 12:
        assert max(abs(got - want) for got, want in zip(counts, exact, strict=True)) < 1


def test_every_pair_of_expressions_differs_on_the_same_head() -> None:
    head = Head.drawn(np.random.default_rng(5))
    drawn = {
        name: draw_face(head, EXPRESSION_SHAPES[name], np.random.default_rng(0)).pixels.astype(int)
        for name in EXPRESSIONS
    }
    for one in EXPRESSIONS:
        for other in EXPRESSIONS:
            changed = (np.abs(drawn[one] - drawn[other]).max(axis=2) > 25).mean()
            assert (changed > 0.002) == (one != other), (one, other, changed)


def test_there_are_68_landmarks_around_the_box() -> None:
    random = np.random.default_rng(7)
    drawing = draw_face(Head.drawn(random), EXPRESSION_SHAPES["happy"], random)
    x, y, width, height = drawing.box
    points = np.array(drawing.landmarks)
    assert points.shape == (68, 2)
    centre = points.mean(axis=0)
    assert x < centre[0] < x + width
    assert y < centre[1] < y + height


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 or more"):
        write_synthetic_affectnet(tmp_path, images=7, seed=0)
