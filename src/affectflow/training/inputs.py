"""The faces of each split, after checking that faces and splits belong together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affectflow.artifacts import artifact_digest, samples_digest
from affectflow.data.faces import Faces
from affectflow.data.splits import SPLITS, check_splits_belong, read_splits
from affectflow.errors import ArtifactError, what_got_wanted
from affectflow.labels import NUM_EXPRESSIONS


@dataclass(frozen=True)
class SplitFaces:
    """The faces of one split, in the order of the manifest.

    Attributes:
        rows: their rows in the manifest, (N,).
        image_id: (N,) strings.
        group: (N,) strings; faces of the same content share one.
        target: expression codes, (N,).
    """

    rows: NDArray[np.int64]
    image_id: NDArray[np.object_]
    group: NDArray[np.object_]
    target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 over image ids and targets: two models are compared on the same digest alone."""
        return samples_digest(self.image_id.tolist(), self.target.tolist())

    @property
    def counts(self) -> list[int]:
        """Faces by expression, in code order."""
        return [int(count) for count in np.bincount(self.target, minlength=NUM_EXPRESSIONS)]


@dataclass(frozen=True)
class Inputs:
    """Faces and how they are split.

    Attributes:
        faces: the dataset.
        splits: ``train``, ``val`` and ``test``.
        faces_digest: of the faces artifact.
        splits_digest: of the splits artifact.
    """

    faces: Faces
    splits: dict[str, SplitFaces]
    faces_digest: str
    splits_digest: str


def open_inputs(faces: str | Path, splits: str | Path) -> Inputs:
    """Open and check both artifacts.

    Raises:
        ArtifactError: one is not whole, or the splits were drawn from other faces.
    """
    dataset = Faces.open(faces)
    table, header = read_splits(splits)
    check_splits_belong(header, dataset)
    row_of = {image_id: row for row, image_id in enumerate(dataset.manifest["image_id"])}
    drawn = table.assign(row=table["image_id"].map(row_of)).sort_values("row")
    got = ""
    if drawn["row"].isna().any():
        got = f"{int(drawn['row'].isna().sum())} faces that the dataset does not have"
    elif absent := [name for name in SPLITS if name not in set(drawn["split"])]:
        got = f"no face in {', '.join(absent)}"
    if got:
        wanted = "faces of this dataset in train, val and test"
        raise ArtifactError(what_got_wanted(str(splits), got=got, wanted=wanted, do="run split_dataset again"))
    return Inputs(
        faces=dataset,
        splits={
            str(name): SplitFaces(
                rows=part["row"].to_numpy(np.int64),
                image_id=part["image_id"].to_numpy(object),
                group=part["group"].to_numpy(object),
                target=part["expression"].to_numpy(np.int64),
            )
            for name, part in drawn.groupby("split")
        },
        faces_digest=artifact_digest(dataset.header),
        splits_digest=artifact_digest(header),
    )
