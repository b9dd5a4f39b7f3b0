"""What an ingest resumes from: its finished shards, each with what became of the faces that it went through."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from affectflow.artifacts import sha256_file
from affectflow.data.manifest import OUTCOME_SCHEMA
from affectflow.data.shards import shard_name
from affectflow.errors import StorageMissingError
from affectflow.progress import warn
from affectflow.storage import Storage


class ShardCheckpoints:
    """Finished shards of one ingest, in a folder of their own.

    A shard is kept as three files, of which the record is written last: it names the others' digests, so that
    what a kill or a fault left half-done or damaged is seen, and done again.

    Args:
        storage: the checkpoint folder.
        folder: in it, named after all that decides what the shards hold.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage = storage
        self._folder = folder

    def keep(self, shard: int, start: int, outcomes: pa.Table, images: Path) -> None:
        """Keep a finished shard.

        Args:
            shard: its number.
            start: how many listed faces come before it.
            outcomes: of the faces that it went through, in order.
            images: its file; there is none when no face was kept.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(outcomes, sink, compression="zstd")
        table = sink.getvalue().to_pybytes()
        record = {
            "start": start,
            "outcomes": hashlib.sha256(table).hexdigest(),
            "images": sha256_file(images) if images.is_file() else None,
        }
        if record["images"]:
            self._storage.put(self._name(images.name), images)
        self._storage.write(self._name(_outcomes(shard)), table)
        self._storage.write(self._name(_record(shard)), json.dumps(record).encode())

    def restore(self, shard: int, start: int, images: Path) -> pa.Table | None:
        """Return a shard's outcomes and write its file to ``images``, or return ``None`` where it is not kept.

        A shard that was kept but is damaged counts as not kept, and is warned of.
        """
        if not self._storage.exists(self._name(_record(shard))):
            return None
        try:
            record = json.loads(self._storage.read(self._name(_record(shard))))
            table = self._storage.read(self._name(_outcomes(shard)))
            if record["start"] != start or hashlib.sha256(table).hexdigest() != record["outcomes"]:
                raise ValueError("changed content")
            if record["images"]:
                self._storage.get(self._name(shard_name(shard)), images)
                if sha256_file(images) != record["images"]:
                    raise ValueError("changed images")
            outcomes = pq.read_table(pa.BufferReader(table))
            if not outcomes.schema.equals(OUTCOME_SCHEMA):
                raise ValueError("other columns")
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, StorageMissingError) as error:
            images.unlink(missing_ok=True)
            where = f"{self._storage.root}/{self._name(_record(shard))}"
            warn(f"{where}: the kept shard is damaged ({error}); it is done again")
            return None
        return outcomes

    def clear(self) -> None:
        """Delete what was kept: the dataset is whole."""
        self._storage.delete(self._folder)

    def _name(self, file: str) -> str:
        return f"{self._folder}/{file}"


def _record(shard: int) -> str:
    return f"shard-{shard:05d}.json"


def _outcomes(shard: int) -> str:
    return f"outcomes-{shard:05d}.parquet"
