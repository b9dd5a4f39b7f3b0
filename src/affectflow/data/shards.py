"""Image shards: Arrow IPC files of encoded faces that are memory-mapped when read.

Columns ``image_id`` and ``image``; all record batches of a shard but its last hold equally many rows.
"""

from pathlib import Path

import pyarrow as pa

_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),
    "image": pa.binary(),
}
SCHEMA = pa.schema(_COLUMNS)
BATCH_ROWS = 256
SHARD_BYTES = 256 << 20


#: How shards' names end.
SHARD_ENDING = ".arrow"


def shard_name(number: int) -> str:
    """Return a shard's file name, e.g. ``images-00003.arrow``."""
    return f"images-{number:05d}{SHARD_ENDING}"


class ShardWriter:
    """Writes one shard, a batch at a time, so that memory stays bounded. A shard without an image makes no file.

    Args:
        path: of the shard.

    Attributes:
        images: how many it holds.
    """

    def __init__(self, path: Path) -> None:
        self.images = 0
        self._path = path
        self._writer: pa.RecordBatchFileWriter | None = None
        self._bytes = 0
        self._ids: list[str] = []
        self._images: list[bytes] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    @property
    def is_full(self) -> bool:
        """Whether the next image belongs to the next shard: at the end of a batch, past :data:`SHARD_BYTES`."""
        return self.images > 0 and not self._ids and self._bytes >= SHARD_BYTES

    def add(self, image_id: str, image: bytes) -> None:
        """Append an image."""
        self.images += 1
        self._ids.append(image_id)
        self._images.append(image)
        if len(self._ids) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._ids:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), SCHEMA)
        images = pa.array(self._images, pa.binary())
        self._writer.write_batch(pa.record_batch([pa.array(self._ids, pa.string()), images], schema=SCHEMA))
        self._bytes += sum(map(len, self._images))
        self._ids, self._images = [], []


class ShardReader:
    """Gives images from a memory-mapped shard without copying them.

    Args:
        path: the shard.
    """

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.schema != SCHEMA:
            raise ValueError(f"{path}: columns {reader.schema.names}, wanted {SCHEMA.names}")
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
            if batch.column("image").null_count:
                raise ValueError(f"{path}: rows without an image")
        self._batch_rows = batches[0].num_rows if batches else 1
        if any(batch.num_rows != self._batch_rows for batch in batches[:-1]):
            raise ValueError(f"{path}: record batches of different lengths")
        self._images = [batch.column("image") for batch in batches]
        self._rows = sum(batch.num_rows for batch in batches)

    def __len__(self) -> int:
        return self._rows

    def image(self, row: int) -> memoryview:
        """Return the encoded image in a row, a view of the mapped file."""
        batch, row_in_batch = divmod(row, self._batch_rows)
        # Arrow calls its bytes signed, which the JPEG decoder refuses.
        return memoryview(self._images[batch][row_in_batch].as_buffer()).cast("B")
