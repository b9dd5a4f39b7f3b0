"""The columns of a ``faces`` artifact's tables (schema version 1), and of what it is made from."""

import pyarrow as pa

MANIFEST_FILE = "manifest.parquet"
QUARANTINE_FILE = "quarantine.parquet"

_MANIFEST_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),  # unique
    "sha256": pa.string(),  # of the source file
    "crop_sha256": pa.string(),  # of the face's pixels before encoding
    "group": pa.string(),  # faces of the same content share it
    "expression": pa.int8(),  # 0–7
    "valence": pa.float32(),  # null where none
    "arousal": pa.float32(),  # null where none
    "source_path": pa.string(),
    "source_list": pa.string(),
    "source_row": pa.int64(),
    "shard": pa.int32(),
    "shard_row": pa.int32(),
    "width": pa.int32(),
    "height": pa.int32(),
}
MANIFEST_SCHEMA = pa.schema(_MANIFEST_COLUMNS)

#: What became of each listed face, in the lists' order; kept beside the finished shards of a run to resume.
_OUTCOME_COLUMNS: dict[str, pa.DataType] = {
    "sha256": pa.string(),
    "crop_sha256": pa.string(),
    "perceptual_hash": pa.uint64(),  # null where near duplicates are not looked for
    "width": pa.int32(),
    "height": pa.int32(),
    "reason": pa.string(),  # of its quarantine; then the columns above are null
    "detail": pa.string(),
}
OUTCOME_SCHEMA = pa.schema(_OUTCOME_COLUMNS)

_QUARANTINE_COLUMNS: dict[str, pa.DataType] = {
    "source_path": pa.string(),
    "source_list": pa.string(),
    "source_row": pa.int64(),
    "reason": pa.string(),
    "detail": pa.string(),
}
QUARANTINE_SCHEMA = pa.schema(_QUARANTINE_COLUMNS)
