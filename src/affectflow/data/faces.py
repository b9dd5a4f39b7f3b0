"""Reads a ``faces`` artifact: its manifest, and its images straight from the memory-mapped shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from affectflow.artifacts import open_artifact
from affectflow.data.crops import decode_image
from affectflow.data.manifest import MANIFEST_FILE, MANIFEST_SCHEMA, QUARANTINE_FILE, QUARANTINE_SCHEMA
from affectflow.data.quarantine import Reason
from affectflow.data.shards import SHARD_ENDING, ShardReader, shard_name
from affectflow.errors import ArtifactError, what_got_wanted
from affectflow.labels import NUM_EXPRESSIONS
from affectflow.tables import read_table

__all__ = ["Faces", "decode_image"]

_DO = "run ingest_affectnet again"
_NULLABLE = ("valence", "arousal")


class Faces:
    """A dataset of faces. Indices are rows of the manifest, from 0.

    It can be pickled and forked: each process maps the shards when it first reads from them.

    Attributes:
        path: the artifact's folder.
        header: its ``dataset.json``.
        manifest: a row a face; columns as in ``affectflow.data.manifest``, index 0 to N - 1.
    """

    def __init__(self, path: Path, header: dict[str, Any], manifest: pd.DataFrame) -> None:
        self.path = path
        self.header = header
        self.manifest = manifest
        self._shard: NDArray[np.int32] = manifest["shard"].to_numpy(np.int32)
        self._row: NDArray[np.int32] = manifest["shard_row"].to_numpy(np.int32)
        self._readers: dict[int, ShardReader] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Faces":
        """Check an artifact and open it.

        Raises:
            ArtifactError: it is missing, half-written, changed, or its tables and shards do not fit together.
        """
        folder = Path(path)
        header = open_artifact(folder, "faces")
        manifest = read_table(
            folder / MANIFEST_FILE, MANIFEST_SCHEMA, do=_DO, rows=header.get("faces"), nullable=_NULLABLE
        )
        faces = cls(folder, header, manifest.to_pandas())
        faces._check_values()
        faces._check_shards()
        return faces

    def __len__(self) -> int:
        return len(self._row)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    @property
    def expression(self) -> NDArray[np.int64]:
        """AffectNet's codes, shape (N,)."""
        return self.manifest["expression"].to_numpy(np.int64)

    @property
    def quarantine(self) -> pd.DataFrame:
        """What was left out and why."""
        quarantined: pd.DataFrame = read_table(self.path / QUARANTINE_FILE, QUARANTINE_SCHEMA, do=_DO).to_pandas()
        return quarantined

    def image_bytes(self, index: int) -> memoryview:
        """Return a face's encoded image, a view of the mapped file; ``decode_image`` decodes it."""
        shard = int(self._shard[index])
        if shard not in self._readers:
            self._readers[shard] = ShardReader(self.path / shard_name(shard))
        return self._readers[shard].image(int(self._row[index]))

    def images(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield faces decoded to RGB, each (H, W, 3) uint8."""
        return (decode_image(self.image_bytes(index)) for index in indices)

    def _check_values(self) -> None:
        """Check ids, codes and places in the manifest."""
        manifest, file = self.manifest, self.path / MANIFEST_FILE
        if not manifest["image_id"].is_unique:
            raise _wrong(file, "an image_id twice", "unique ones")
        if not manifest["expression"].between(0, NUM_EXPRESSIONS - 1).all():
            raise _wrong(file, "an expression outside 0 to 7", "codes 0 to 7")
        shards = self._num_shards()
        if len(self) and not (self._shard.min() >= 0 and self._shard.max() < shards and self._row.min() >= 0):
            raise _wrong(file, "a face in no image shard", f"shards 0 to {shards - 1}, rows from 0")

    def _check_shards(self) -> None:
        last_row = pd.Series(self._row).groupby(self._shard).max()
        stored = 0
        for number in range(self._num_shards()):
            path = self.path / shard_name(number)
            try:
                images = len(ShardReader(path))
            except MemoryError:
                raise
            except (OSError, ValueError, pa.ArrowException) as error:
                raise _wrong(path, f"no image shard ({error})", "one with images") from None
            if (needed := int(last_row.get(number, -1)) + 1) > images:
                raise _wrong(path, f"{images} images", f"{needed} or more, as the manifest says")
            stored += images
        # Faces of conflicting labels are dropped when their shard was written already.
        quarantined = self.header.get("quarantined")
        dropped = quarantined.get(Reason.CONFLICTING_LABELS, 0) if isinstance(quarantined, dict) else 0
        if not isinstance(dropped, int) or stored != len(self) + dropped:
            raise _wrong(self.path, f"{stored} images", f"{len(self)} and {dropped} dropped ones")

    def _num_shards(self) -> int:
        return sum(name.endswith(SHARD_ENDING) for name in self.header["files"])


def _wrong(path: Path, got: str, wanted: str) -> ArtifactError:
    return ArtifactError(what_got_wanted(str(path), got=got, wanted=wanted, do=_DO))
