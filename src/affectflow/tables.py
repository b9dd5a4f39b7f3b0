"""Reads the Parquet tables of artifacts: whatever a file holds, it is a table of the right form or one line."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from affectflow.errors import ArtifactError, what_got_wanted


def read_table(
    file: Path, schema: pa.Schema | None, *, do: str, rows: object = None, nullable: Collection[str] = ()
) -> pa.Table:
    """Read a table and check all of it: columns, types, rows, nulls, and that its texts are UTF-8.

    Args:
        file: a Parquet file.
        schema: the columns that it must have; None for any.
        do: what to do where it is not as it must be.
        rows: how many it must have, as a header says; None for any.
        nullable: columns that may hold nulls; with a schema the others may not.

    Raises:
        ArtifactError: naming what is wrong.
    """

    def wrong(got: str, wanted: str) -> ArtifactError:
        return ArtifactError(what_got_wanted(str(file), got=got, wanted=wanted, do=do))

    try:
        # Its metadata is written by pandas for pandas, and is not ours to trust.
        table = pq.read_table(file).replace_schema_metadata()
        table.validate(full=True)
    except MemoryError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise wrong(f"an unreadable table ({error})", "a Parquet file") from None
    if schema is not None:
        if not table.schema.equals(schema):
            raise wrong(f"the columns {_described(table.schema)}", _described(schema))
        for name in table.schema.names:
            if name not in nullable and table[name].null_count:
                raise wrong(f"{table[name].null_count} rows without {name}", "a value in every row")
    if rows is not None and table.num_rows != rows:
        raise wrong(f"{table.num_rows} rows", f"{rows!r}, as its header says")
    return table


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
