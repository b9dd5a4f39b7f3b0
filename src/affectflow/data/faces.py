"""Reads a ``faces`` artifact: its manifest, and its images straight from the memory-mapped shards."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from affectflow.artifacts import open_artifact
from affectflow.data.crops import decode_image
from affectflow.data.manifest import MANIFEST_FILE, MANIFEST_SCHEMA, QUARANTINE_FILE, QUARANTINE_SCHEMA
from affectflow.data.shards import ShardReader, shard_name
from affectflow.errors import ArtifactError, what_got_wanted

__all__ = ["Faces", "decode_image"]


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
        manifest = _read_table(folder / MANIFEST_FILE, MANIFEST_SCHEMA)
        faces = cls(folder, header, manifest)
        faces._check_rows()
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
        return _read_table(self.path / QUARANTINE_FILE, QUARANTINE_SCHEMA)

    def image_bytes(self, index: int) -> memoryview:
        """Return a face's encoded image, a view of the mapped file; ``decode_image`` decodes it."""
        shard = int(self._shard[index])
        if shard not in self._readers:
            self._readers[shard] = ShardReader(self.path / shard_name(shard))
        return self._readers[shard].image(int(self._row[index]))

    def images(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield faces decoded to RGB, each (H, W, 3) uint8."""
        return (decode_image(self.image_bytes(index)) for index in indices)

    def _check_rows(self) -> None:
        if len(self) != self.header.get("faces"):
            raise _wrong(self.path / MANIFEST_FILE, f"{len(self)} rows", f"{self.header.get('faces')!r}")
        for number in np.unique(self._shard).tolist():
            path = self.path / shard_name(number)
            try:
                stored = len(ShardReader(path))
            except (OSError, ValueError, pa.ArrowException) as error:
                raise _wrong(path, f"no image shard ({error})", "one with images") from None
            # A shard also holds the images of faces that were dropped after it was written.
            last = int(self._row[self._shard == number].max())
            if last >= stored:
                raise _wrong(path, f"{stored} images", f"{last + 1} or more, as the manifest says")


def _read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _wrong(path, f"an unreadable table ({error})", "a Parquet file") from None
    if not table.schema.equals(schema):
        raise _wrong(path, f"the columns {', '.join(table.schema.names)}", ", ".join(schema.names))
    return table.to_pandas()


def _wrong(path: Path, got: str, wanted: str) -> ArtifactError:
    return ArtifactError(what_got_wanted(str(path), got=got, wanted=wanted, do="run ingest_affectnet again"))
