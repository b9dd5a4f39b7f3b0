"""AffectNet's other two layouts, ``automatic`` and ``npy``, and which lists are held out in each layout."""

from pathlib import Path

import numpy as np
import pytest
from face_trees import HEADER, encoded, line, pixels, write_manual, write_npy, write_npy_face

from affectflow.data.layouts import LAYOUTS, find_layout
from affectflow.data.layouts.base import ListedFace
from affectflow.data.listing import Listing, list_faces
from affectflow.data.quarantine import Reason
from affectflow.errors import DataError

GOOD = {"exp": "3", "val": "0.5", "aro": np.float64(-0.25), "lnd": np.zeros((68, 2))}


def write_automatic(
    root: Path, text: str, lists: str, images: str, name: str = "automatically_annotated.csv"
) -> Path:
    (root / lists).mkdir(parents=True)
    (root / lists / name).write_text(text, encoding="utf-8")
    (root / images / "1").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("lists", "images"),
    [
        ("Automatically_Annotated_file_lists", "Automatically_Annotated_Images"),
        ("Automatically_annotated_file_list", "Automatically_Annotated_Images"),
        ("automatically_annotated_file_lists", "automatically_annotated_images"),
    ],
)
@pytest.mark.parametrize("layout", ["auto", "automatic"])
def test_automatic_is_read_under_all_its_names(tmp_path: Path, lists: str, images: str, layout: str) -> None:
    text = "\n".join([HEADER, line("1/a.jpg", 3, box="1,2,30,40"), line("1/b.jpg", 9), line("1/c.jpg", "x")])
    listing = list_faces(write_automatic(tmp_path, text, lists, images), layout)
    assert listing.layout == "automatic"
    (face,) = listing.faces
    assert (face.source_path, face.source_list, face.source_row) == (
        "1/a.jpg", f"{lists}/automatically_annotated.csv", 2,
    )  # fmt: skip
    assert (face.folders, face.expression, face.box, face.valence) == ((images,), 3, (1, 2, 30, 40), 0.5)
    assert listing.excluded == {9: 1}
    assert [row.reason for row in listing.quarantined] == [Reason.BAD_LABEL]


@pytest.mark.parametrize("lost", ["Automatically_Annotated_file_lists", "Automatically_Annotated_Images", "list"])
def test_automatic_names_the_part_that_is_missing(tmp_path: Path, lost: str) -> None:
    lists = "Automatically_Annotated_file_lists"
    write_automatic(tmp_path, HEADER, lists, "Automatically_Annotated_Images")
    part = tmp_path / (f"{lists}/automatically_annotated.csv" if lost == "list" else lost)
    part.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as error:
        list_faces(tmp_path, "automatic")
    assert str(part) in str(error.value)
    assert "\n" not in str(error.value)


def test_both_parts_of_affectnet_in_one_folder_are_two_layouts(tmp_path: Path) -> None:
    write_manual(tmp_path, [line("1/a.jpg")])
    write_automatic(tmp_path, HEADER, "Automatically_Annotated_file_lists", "Automatically_Annotated_Images")
    with pytest.raises(DataError, match=r"several layouts: manual \(.*automatic \(.*--layout"):
        find_layout(tmp_path)
    assert len(list_faces(tmp_path, "manual").faces) == 2


def one(root: Path, **annotations: object) -> ListedFace | Reason:
    """List a single face of layout npy, besides a good one in the other set."""
    write_npy_face(root, "train_set", "7", data=encoded(pixels(1)), **annotations)
    write_npy_face(root, "val_set", "1", data=encoded(pixels(2)), **GOOD)
    listing = list_faces(root, "auto")
    assert listing.layout == "npy"
    found: list[ListedFace | Reason] = [face for face in listing.faces if face.source_list.startswith("train_set")]
    found += [row.reason for row in listing.quarantined]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    "exp", ["3", 3, 3.0, np.bytes_(b"3"), np.array([3]), np.array("3.0"), np.int64(3), "surprise"]
)
def test_npy_casts_numbers_and_text_of_every_type(tmp_path: Path, exp: object) -> None:
    face = one(tmp_path, **GOOD | {"exp": exp})
    assert isinstance(face, ListedFace)
    assert (face.source_path, face.source_list) == ("train_set/images/7.jpg", "train_set/annotations")
    assert (face.expression, face.valence, face.arousal, face.box) == (3, 0.5, -0.25, None)
    assert face.unusable == ()


@pytest.mark.parametrize(
    "exp", ["11", 2.5, "", np.array([]), np.array([1, 2]), np.array([{}], dtype=object), b"x", b""]
)
def test_npy_quarantines_labels_that_are_none(tmp_path: Path, exp: object) -> None:
    assert one(tmp_path, **GOOD | {"exp": exp}) is Reason.BAD_LABEL


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("kind", ["exp", "val", "lnd"])
def test_npy_loads_no_pickle(tmp_path: Path, kind: str) -> None:
    trap = np.array([Trap(tmp_path / "unpickled")], dtype=object)
    one(tmp_path / "root", **GOOD | {kind: trap})
    assert not (tmp_path / "unpickled").exists()
    np.load(tmp_path / "root" / "train_set" / "annotations" / f"7_{kind}.npy", allow_pickle=True)
    assert (tmp_path / "unpickled").exists(), "the trap does work"


@pytest.mark.parametrize(
    ("kind", "value", "role"),
    [
        ("val", "-2", "valence"), ("val", b"damaged", "valence"), ("aro", "nan", "arousal"),
        ("aro", np.array([1.0, 2.0]), "arousal"), ("lnd", np.zeros(10), "landmarks"),
        ("lnd", np.full(136, np.nan), "landmarks"), ("lnd", np.array(["x"] * 136), "landmarks"),
    ],
)  # fmt: skip
def test_npy_sets_unusable_values_to_null_and_counts_them(
    tmp_path: Path, kind: str, value: object, role: str
) -> None:
    face = one(tmp_path, **GOOD | {kind: value})
    assert isinstance(face, ListedFace)
    assert face.unusable == (role,)
    assert role == "landmarks" or getattr(face, role) is None


def test_npy_lists_in_the_order_of_numbers_and_names_what_lacks_its_other_half(tmp_path: Path) -> None:
    for face in ("10", "9", "2"):
        write_npy_face(tmp_path, "train_set", face, data=b"picture", **GOOD)
    write_npy_face(tmp_path, "train_set", "5", data=b"picture without a label", val=0.0)
    write_npy_face(tmp_path, "train_set", "6", data=None, **GOOD)
    write_npy_face(tmp_path, "valid_set", "1", data=b"picture", **GOOD | {"exp": "8"})
    (tmp_path / "train_set" / "images" / "2.jpg").rename(tmp_path / "train_set" / "images" / "2.PNG")
    listing = list_faces(tmp_path, "npy")
    assert [(face.source_row, face.source_path.removeprefix("train_set/images/")) for face in listing.faces] == [
        (1, "2.PNG"), (3, "6.jpg"), (4, "9.jpg"), (5, "10.jpg"),
    ]  # fmt: skip
    assert [(row.source_row, row.reason, row.detail) for row in listing.quarantined] == [
        (2, Reason.BAD_ROW, "no 5_exp.npy")
    ]
    assert listing.excluded == {8: 1}


def test_npy_takes_a_second_picture_of_a_name_for_none_and_passes_over_what_macos_adds(tmp_path: Path) -> None:
    for folder in ("train_set", "val_set"):
        write_npy_face(tmp_path, folder, "7", data=b"picture", **GOOD)
    images = tmp_path / "train_set" / "images"
    for name in ("7.png", "._7.jpg", ".DS_Store"):
        (images / name).write_bytes(b"another")

    listing = list_faces(tmp_path, "npy")

    assert [face.source_path for face in listing.faces] == [f"{s}/images/7.jpg" for s in ("train_set", "val_set")]
    (row,) = listing.quarantined
    assert (row.source_path, row.reason) == ("train_set/images/7.png", Reason.BAD_ROW)
    assert row.detail == "7.jpg has the same name"


@pytest.mark.parametrize("lost", ["train_set", "val_set", "val_set/images", "train_set/annotations"])
def test_npy_names_the_folder_that_is_missing(tmp_path: Path, lost: str) -> None:
    write_npy(tmp_path)
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as error:
        list_faces(tmp_path, "npy")
    assert str(tmp_path / lost) in str(error.value)
    assert "\n" not in str(error.value)


def held_out(listing: Listing) -> set[str]:
    lists = {face.source_list for face in listing.faces}
    return {name for name in lists if LAYOUTS[listing.layout].is_held_out(name)}


def test_every_layout_knows_its_held_out_lists(tmp_path: Path) -> None:
    manual = list_faces(write_manual(tmp_path / "m", [line("1/a.jpg")]))
    assert held_out(manual) == {"Manually_Annotated_file_lists/validation.csv"}
    assert held_out(list_faces(write_npy(tmp_path / "n"))) == {"val_set/annotations"}
    for name in ("train/happy", "Validation/happy", "test/sad", "happy"):
        (tmp_path / "f" / name).mkdir(parents=True)
        (tmp_path / "f" / name / "a.jpg").write_bytes(b"picture")
    assert held_out(list_faces(tmp_path / "f")) == {"Validation", "test"}
