"""The face data and the files of pre-trained weights."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from affectflow.doctor.check import Finding
from affectflow.labels import EXPRESSIONS
from affectflow.storage import local_file

if TYPE_CHECKING:
    from affectflow.data.listing import Listing

#: Listed pictures that are opened.
_OPENED = 200

#: Faces of the rarest expression that the paper's splits leave some of to train on.
_PAPER_SPLITS = 1000
_DEMO_NEEDS = 4


def check_dataset(source: str, layout: str) -> Iterator[Finding]:
    """Read the lists of a source as the ingest step does, and open some of the pictures that they name."""
    from affectflow.data.listing import list_faces

    listing = list_faces(source, layout)
    counts = Counter(face.expression for face in listing.faces)
    named = ", ".join(f"{name} {counts[code]:,}" for code, name in enumerate(EXPRESSIONS))
    yield Finding("dataset", "ok", f"layout {listing.layout}, {len(listing.faces):,} faces: {named}")
    if listing.quarantined:
        first = listing.quarantined[0]
        yield Finding(
            "dataset rows",
            "note",
            f"{len(listing.quarantined):,} cannot be used, e.g. row {first.source_row} of "
            f"{first.source_list or listing.layout}: {first.detail}",
            "mend them, or let ingest_affectnet set them aside (--max-quarantined)",
        )
    yield from _check_rarest(counts)
    yield from _check_pictures(listing)


def _check_rarest(counts: Counter[int]) -> Iterator[Finding]:
    code = min(range(len(EXPRESSIONS)), key=lambda code: counts[code])
    name, count = EXPRESSIONS[code], counts[code]
    if count < _DEMO_NEEDS:
        found = f"{name} has {count} faces"
        mend = f"add some: {_DEMO_NEEDS} are needed to train, validate and test"
        yield Finding("rarest expression", "bad", found, mend)
    elif count <= _PAPER_SPLITS:
        yield Finding(
            "rarest expression",
            "note",
            f"{name} has {count:,} faces, too few for the paper's 500 and 500 a class",
            f"pass --val-per-class {count // 4} --test-per-class {count // 4}",
        )
    else:
        yield Finding("rarest expression", "ok", f"{name} has {count:,} faces")


def _check_pictures(listing: "Listing") -> Iterator[Finding]:
    from affectflow.data.crops import decode_picture
    from affectflow.data.quarantine import FaceError, Reason

    drawn = random.Random(0).sample(listing.faces, min(_OPENED, len(listing.faces)))  # noqa: S311 - to look at
    missing: list[str] = []
    broken: list[str] = []
    for face in drawn:
        try:
            decode_picture(listing.source.read(face.folders, face.source_path))
        except FaceError as error:
            (missing if error.reason is Reason.MISSING else broken).append(f"{face.source_path} ({error.detail})")
    if missing:
        found = f"{len(missing)} of {len(drawn)} looked for are missing, e.g. {missing[0]}"
        yield Finding("pictures", "bad", found, "copy them, or pass the --source that the lists belong to")
    elif broken:
        found = f"{len(broken)} of {len(drawn)} opened are broken, e.g. {broken[0]}"
        yield Finding("pictures", "note", found, "copy them again; ingest_affectnet sets broken ones aside")
    else:
        yield Finding("pictures", "ok", f"{len(drawn)} of {len(drawn)} opened")


def check_weights(weights: str, backbone: str) -> Iterator[Finding]:
    """Read a file of pre-trained weights and, where a backbone is named, load it into that."""
    from affectflow.models import create_backbone, load_pretrained, merge_backbone_args
    from affectflow.models.weight_files import read_weights

    with local_file(weights) as file:
        entries = read_weights(file)
        if not backbone:
            mend = "pass --backbone to load them into it"
            yield Finding("weights", "ok", f"{weights}: {len(entries)} entries", mend)
            return
        try:
            network = create_backbone(backbone, merge_backbone_args(file, backbone, {}))
        except ValueError as error:
            found, _, mend = str(error).rpartition("; ")
            yield Finding("weights", "bad", found, mend)
            return
        info = load_pretrained(network, file, backbone)
    folded = ", BatchNorm folded" if info.folded_batchnorm else ""
    yield Finding(
        "weights", "ok", f"{weights}: {info.entries} entries of form {info.format} fit {backbone}{folded}"
    )
