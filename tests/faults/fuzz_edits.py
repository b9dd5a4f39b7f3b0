"""Damages what is read: bytes, JSON and checkpoint trees, tables. Everything follows from a ``random.Random``."""

import copy
import json
import random
from typing import Any

import pyarrow as pa
import torch

#: Numbers that parsers stumble on, as little-endian words.
_WORDS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
    b"\0\0\0\0\1\0\0\0",
)
_TEXTS = (
    b"",
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"NULL",
    b"9" * 400,
    b'"',
    b"\0",
    b"\r",
    b"\n",
    b",",
    b";" * 200,
    b"../../etc/passwd",
    b"/etc/passwd",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"<script>",
    b"%s%n",
    b"{}",
    b"[",
    b"C:\\x.jpg",
    b"\\\\host\\share",
    b"CON",
    b"~",
    b"\xed\xa0\x80",
)
#: Values that a JSON field or a checkpoint's entry does not have.
_STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31 - 1,
    2**31,
    2**63,
    10**30,
    -0.5,
    0.1,
    1e308,
    "",
    "x",
    "\0",
    "x" * 5000,
    "../x",
    "é\ud800",
    [],
    [[]],
    [None],
    ["x"],
    {},
    {"": 0},
    {"bytes": -1},
    [1, 2, 3],
    [0.5] * 8,
)


def damage(data: bytes, chance: random.Random, *, others: tuple[bytes, ...] = ()) -> bytes:
    """Return bytes after one to six damages: flips, cuts, copies, planted words, parts of another file."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(content) + 1)
        length = min(len(content) - at, chance.choice((1, 1, 2, 4, 8, 16, 64, 1000)))
        match chance.randrange(9):
            case 0 if at < len(content):
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                word = chance.choice(_WORDS)
                content[at : at + len(word)] = word
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                content[at:at] = chance.choice(_TEXTS)
            case 5:
                del content[at:]
            case 6 if others:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                content[at : at + length] = other[start : start + length]
            case 7:
                content[at : at + length] = chance.randbytes(length)
            case _:
                content += chance.choice(_TEXTS + _WORDS)
    return bytes(content)


def damage_tree(value: Any, chance: random.Random) -> Any:
    """Return a tree of dicts, lists and leaves after one to three damages somewhere in it."""
    tree = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2, 3))):
        tree = _damage_node(tree, chance)
    return tree


def _damage_node(node: Any, chance: random.Random) -> Any:
    if isinstance(node, dict | list) and len(node) and chance.random() < 0.8:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = chance.choice(list(keys))
        if chance.random() < 0.25:
            del node[key]
        elif isinstance(node, dict) and chance.random() < 0.1:
            node[chance.choice(("", "x", "é"))] = node.pop(key)
        else:
            node[key] = _damage_node(node[key], chance)
        return node
    if isinstance(node, torch.Tensor) and chance.random() < 0.7:
        return chance.choice(
            (
                node.double(),
                node.flatten()[:1],
                node.new_full(node.shape, float("nan")) if node.is_floating_point() else node,
                node[None],
                torch.zeros(0),
                node.to(torch.uint8),
            )
        )
    return copy.deepcopy(chance.choice(_STRANGE))


def damage_json(data: bytes, chance: random.Random) -> bytes:
    """Return a JSON file after damages to its values, or now and then to its bytes."""
    if chance.random() < 0.2:
        return damage(data, chance)
    tree = damage_tree(json.loads(data), chance)
    return json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def damage_table(table: pa.Table, chance: random.Random) -> pa.Table:
    """Return a table after one to three damages: cells, nulls, types, columns and rows."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        table = _damage_table(table, chance)
    return table


def _damage_table(table: pa.Table, chance: random.Random) -> pa.Table:
    if not table.num_columns:
        return table
    place = chance.randrange(table.num_columns)
    field, column = table.field(place), table.column(place)
    match chance.randrange(8):
        case 0:
            return table.remove_column(place)
        case 1:
            return table.rename_columns(["x" if n == place else name for n, name in enumerate(table.schema.names)])
        case 2:
            return table.slice(chance.randrange(table.num_rows + 1))
        case 3:
            return pa.concat_tables([table, table])
        case 4:
            kind = chance.choice(
                (pa.string(), pa.int64(), pa.float64(), pa.null(), pa.binary(), pa.list_(pa.int8()))
            )
            return table.set_column(place, field.name, pa.nulls(table.num_rows, kind))
        case 5:
            return table.replace_schema_metadata(
                {b"pandas": chance.choice((b"{", b"{}", b'{"index_columns": 3}', b"\xff"))}
            )
        case _:
            values = column.to_pylist()
            for _ in range(chance.choice((1, 2, len(values)))):
                if values:
                    values[chance.randrange(len(values))] = _strange_cell(field.type, chance)
            return table.set_column(place, field, pa.array(values, field.type))


def _strange_cell(kind: pa.DataType, chance: random.Random) -> Any:
    if pa.types.is_integer(kind):
        bits = kind.bit_width - 1
        return chance.choice((None, -1, 0, 1, 8, 100, 2**bits - 1, -(2**bits)))
    if pa.types.is_floating(kind):
        return chance.choice((None, -1.0, 0.0, 2.0, float("nan"), float("inf"), 1e30))
    if pa.types.is_null(kind) or (pa.types.is_list(kind) and not pa.types.is_floating(kind.value_type)):
        return None
    if pa.types.is_list(kind):
        return chance.choice((None, [], [0.5], [float("nan")] * 8, [-1.0] * 8, [0.125] * 9, [1e30] * 8))
    text = chance.choice(("", "x", "\0", "x" * 5000, "../x", "<script>", "train", "ü", None))
    return text.encode() if pa.types.is_binary(kind) and text is not None else text
