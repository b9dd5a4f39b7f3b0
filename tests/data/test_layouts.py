"""The layouts: what they recognise, what they yield, and what they refuse in one line."""

import errno
import os
from pathlib import Path

import pytest
from face_trees import HEADER, encoded, line, pixels, write_manual

from affectflow.data.layouts import LAYOUTS, find_layout
from affectflow.data.layouts.base import ListedFace, Row
from affectflow.data.layouts.manual import IMAGES, LISTS
from affectflow.data.listing import list_faces
from affectflow.data.sources import open_source
from affectflow.errors import DataError, SettingsError, StorageError


def read(root: Path, layout: str) -> list[Row]:
    return list(LAYOUTS[layout].read(open_source(root)))


def faces(root: Path, layout: str) -> list[ListedFace]:
    rows = read(root, layout)
    assert all(isinstance(row, ListedFace) for row in rows), rows
    return [row for row in rows if isinstance(row, ListedFace)]


def write_table(root: Path, text: str, name: str = "labels.csv") -> Path:
    root.mkdir(exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root


def write_folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(pixels(len(name))))
    return root


def one_line(error: pytest.ExceptionInfo[Exception], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_manual_reads_lists_with_and_without_header(tmp_path: Path) -> None:
    write_manual(tmp_path, [line("1/a.jpg", 3, box="1.0,2,30,40.5")], [line("2/b.jpg", "6.0", valence="-2")])
    first, second = faces(tmp_path, "manual")
    assert (first.source_path, first.source_row, first.expression) == ("1/a.jpg", 2, 3)
    assert first.box == (1, 2, 30, 40.5)
    assert (first.valence, first.arousal, first.unusable) == (0.5, 0.25, ())
    assert first.folders == (IMAGES,)
    assert (second.source_list, second.source_row, second.expression) == (f"{LISTS}/validation.csv", 1, 6)
    assert (second.valence, second.unusable) == (None, ("valence",))


def test_manual_finds_columns_by_name_when_the_header_orders_them_otherwise(tmp_path: Path) -> None:
    write_manual(tmp_path, [])
    names = HEADER.split(",")
    header, row = ",".join(reversed(names)), ",".join(reversed(line("1/a.jpg", 4, box="1,2,3,4").split(",")))
    (tmp_path / LISTS / "training.csv").write_text(f"\ufeff{header}\r\n{row}\r\n", encoding="utf-8")
    first = faces(tmp_path, "manual")[0]
    assert (first.source_path, first.expression, first.box) == ("1/a.jpg", 4, (1, 2, 3, 4))


@pytest.mark.parametrize("landmarks", ["", "NULL", "1;2", "nan;" * 135 + "1", "1;" * 135 + "x"])
def test_unusable_landmarks_keep_the_face_and_are_counted(tmp_path: Path, landmarks: str) -> None:
    write_manual(tmp_path, [line("1/a.jpg", landmarks=landmarks)])
    listing = list_faces(tmp_path)
    assert len(listing.faces) == 2
    assert listing.unusable == {"landmarks": 1}


def test_other_codes_are_counted_and_left_out_even_without_a_box(tmp_path: Path) -> None:
    rows = [line("1/a.jpg", 8), line("1/b.jpg", 10, box="NULL,NULL,NULL,NULL"), line("1/c.jpg", 10)]
    listing = list_faces(write_manual(tmp_path, rows))
    assert listing.excluded == {8: 1, 10: 2}
    assert len(listing.faces) == 1
    assert not listing.quarantined


def test_rows_repeated_word_for_word_count_once_in_both_lists_and_when_unusable(tmp_path: Path) -> None:
    row, bad = line("1/a.jpg"), line("1/b.jpg", 99)
    listing = list_faces(write_manual(tmp_path, [row, row, bad, bad, line("1/a.jpg", 2)], [row]))
    # The held-out list's row stands for the training list's, so that an official test set stays whole.
    assert [(face.source_list, face.source_row) for face in listing.faces] == [
        (f"{LISTS}/validation.csv", 1), (f"{LISTS}/training.csv", 6),
    ]  # fmt: skip
    assert len(listing.quarantined) == 1
    assert listing.repeated == 3


def test_image_ids_are_unique_and_do_not_change_when_rows_are_added_before(tmp_path: Path) -> None:
    rows = [line("1/a.jpg"), line("1/a.jpg", 2), line("2/a.jpg")]
    before = list_faces(write_manual(tmp_path / "before", rows)).faces
    after = list_faces(write_manual(tmp_path / "after", [line("0/new.jpg"), *rows])).faces
    ids = [face.image_id for face in before]
    assert len(set(ids)) == len(ids)
    assert ids == [face.image_id for face in after[1:]]


@pytest.mark.parametrize("lost", [LISTS, IMAGES, f"{LISTS}/training.csv", f"{LISTS}/validation.csv"])
def test_manual_names_the_list_or_folder_that_is_missing(tmp_path: Path, lost: str) -> None:
    write_manual(tmp_path, [line("1/a.jpg")])
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as error:
        read(tmp_path, "manual")
    one_line(error, str(tmp_path / lost))


@pytest.mark.parametrize(
    "text", ["", HEADER, HEADER + "\n\n", "name,emotion\na,1\n", HEADER.replace("expression", "x")]
)
def test_manual_refuses_an_empty_list_and_another_header(tmp_path: Path, text: str) -> None:
    write_manual(tmp_path, [])
    (tmp_path / LISTS / "training.csv").write_text(text)
    with pytest.raises(DataError) as error:
        read(tmp_path, "manual")
    one_line(error, "training.csv")


@pytest.mark.parametrize("path_column", ["path", "image", "file", "filename", "Image_Path"])
@pytest.mark.parametrize("label_column", ["label", "expression", "Emotion", "class"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_knows_the_usual_names_and_delimiters(
    tmp_path: Path, path_column: str, label_column: str, delimiter: str
) -> None:
    text = (
        delimiter.join(["id", label_column, path_column])
        + "\n"
        + delimiter.join(["7", "happiness", "a.png"])
        + "\n"
    )
    face = faces(write_table(tmp_path, text, "any.csv"), "csv")[0]
    assert (face.source_path, face.expression, face.box, face.source_row) == ("a.png", 1, None, 2)
    assert face.folders == ("", "images")


def test_csv_maps_names_and_codes_never_by_alphabet(tmp_path: Path) -> None:
    labels = ["neutral", "Happiness", "sadness", "surprised", "FEAR", "disgust", "angry", "contempt", "6", "5.0"]
    text = "path,label\n" + "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))
    assert [face.expression for face in faces(write_table(tmp_path, text), "csv")] == [*range(8), 6, 5]


def test_csv_reads_quoted_cells_and_boxes(tmp_path: Path) -> None:
    text = 'path,label,face_x,face_y,face_width,face_height,valence\n"a, b.png",sad,1,2,30,40,0.5\n'
    face = faces(write_table(tmp_path, text), "csv")[0]
    assert (face.source_path, face.box, face.valence) == ("a, b.png", (1, 2, 30, 40), 0.5)


def test_csv_prefers_labels_csv_and_else_the_only_table_that_fits(tmp_path: Path) -> None:
    write_table(tmp_path, "path,label\nright.png,1\n", "train.csv")
    write_table(tmp_path, "model,score\nx,1\n", "scores.csv")
    assert faces(tmp_path, "csv")[0].source_path == "right.png"
    write_table(tmp_path, "path,label\nbest.png,1\n")
    assert faces(tmp_path, "csv")[0].source_path == "best.png"


@pytest.mark.parametrize(
    ("tables", "word"),
    [
        ({}, "no *.csv"),
        ({"a.csv": "path,label\na,1\n", "b.csv": "path,label\na,1\n"}, "a.csv, b.csv"),
        ({"a.csv": "path,age\na,1\n"}, "label column"),
        ({"a.csv": "label,age\na,1\n"}, "path column"),
        ({"a.csv": "path,label\n"}, "no rows"),
        ({"a.csv": ""}, "empty first line"),
    ],
)
def test_csv_refuses_tables_that_it_cannot_read(tmp_path: Path, tables: dict[str, str], word: str) -> None:
    for name, text in tables.items():
        write_table(tmp_path, text, name)
    with pytest.raises(DataError) as error:
        read(tmp_path, "csv")
    one_line(error, word)


def test_a_label_column_without_one_usable_label_is_an_error_and_not_a_quarantine(tmp_path: Path) -> None:
    write_table(tmp_path, "path,label\na.png,male\nb.png,female\n")
    with pytest.raises(DataError) as error:
        list_faces(tmp_path)
    one_line(error, "'male'", "row 2", "neutral, happy")


def test_folder_maps_names_and_codes_with_and_without_splits(tmp_path: Path) -> None:
    write_folders(
        tmp_path, "happiness/b.jpg", "happiness/deep/a.JPG", "5/c.png", "Train/anger/d.jpg", "val/6/e.jpg"
    )
    write_folders(tmp_path, "happiness/.DS_Store", "happiness/Thumbs.db", "docs.txt")
    found = {(face.source_list, face.source_path): face.expression for face in faces(tmp_path, "folder")}
    assert found == {
        ("", "5/c.png"): 5,
        ("", "happiness/b.jpg"): 1,
        ("", "happiness/deep/a.JPG"): 1,
        ("Train", "Train/anger/d.jpg"): 6,
        ("val", "val/6/e.jpg"): 6,
    }


def test_folder_reports_pictures_of_unknown_classes_and_linked_folders(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "root", "happy/a.jpg", "ahegao/b.jpg")
    write_folders(tmp_path, "elsewhere/c.jpg")
    (root / "happy" / "more").symlink_to(tmp_path / "elsewhere")
    listing = list_faces(root)
    assert [face.source_path for face in listing.faces] == ["happy/a.jpg"]
    assert {(row.source_path, row.reason) for row in listing.quarantined} == {
        ("ahegao/b.jpg", "bad_label"),
        ("happy/more", "outside_root"),
    }


def test_a_disk_that_fails_stops_the_run_and_sets_no_picture_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(file: str) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), file)

    monkeypatch.setattr("affectflow.data.sources._read_file", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        open_source(str(tmp_path)).read(("",), "face.jpg")


def test_folder_stops_at_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folders(tmp_path / "root", "happy/a.jpg", "happy/deep/b.jpg")
    scandir = os.scandir

    def closed(path: str) -> object:  # the tests may run as root, to whom every folder is open
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(StorageError) as error:
        list_faces(root)
    one_line(error, "happy/deep", "Permission denied")


def test_folder_refuses_trees_without_classes_or_pictures(tmp_path: Path) -> None:
    for root, word in ((write_folders(tmp_path / "a", "cats/a.jpg"), "cats/"), (tmp_path / "b", "without a file")):
        (root / ("cats" if word == "cats/" else "happy")).mkdir(parents=True, exist_ok=True)
        with pytest.raises(DataError) as error:
            read(root, "folder")
        one_line(error, word)


def test_auto_recognises_each_layout(tmp_path: Path) -> None:
    assert find_layout(write_manual(tmp_path / "m", [line("1/a.jpg")])) == "manual"
    assert find_layout(write_table(tmp_path / "c", "path,label\na,1\n")) == "csv"
    assert find_layout(write_folders(tmp_path / "f", "test/happy/a.jpg")) == "folder"


def test_auto_does_not_take_affectnets_numbered_folders_for_classes(tmp_path: Path) -> None:
    root = write_manual(tmp_path, [line("1/a.jpg")])
    write_folders(root / IMAGES, "1/a.jpg", "7/b.jpg")
    assert find_layout(root) == "manual"


def test_auto_refuses_none_and_several_layouts_and_names_them(tmp_path: Path) -> None:
    write_folders(tmp_path, "cats/a.jpg")
    with pytest.raises(DataError) as error:
        find_layout(tmp_path)
    one_line(error, "cats", "manual: ", "csv: ", "folder: ")
    write_folders(tmp_path, "happy/a.jpg")
    write_table(tmp_path, "path,label\na,1\n")
    with pytest.raises(DataError) as error:
        find_layout(tmp_path)
    one_line(error, "csv (the tables labels.csv)", "folder (", "--layout")


def test_unknown_layouts_and_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        find_layout(tmp_path, "manuel")
    one_line(error, "'manuel'", "manual")
    with pytest.raises(DataError) as missing:
        find_layout(tmp_path / "nowhere")
    one_line(missing, "nowhere")
