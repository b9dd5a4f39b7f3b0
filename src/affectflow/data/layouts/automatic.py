"""Layout ``automatic``: AffectNet's automatically annotated part.

``Automatically_Annotated_file_lists/automatically_annotated.csv`` with the nine columns of layout ``manual``, and
``Automatically_Annotated_Images/<directory>/<file>``. Copies write the folders' names with other capitals, and
``file_list`` without the s.
"""

from collections.abc import Iterator

from affectflow.data.layouts.base import Layout, Row
from affectflow.data.layouts.manual import broken, read_affectnet_list
from affectflow.data.sources import Source

LISTS = "Automatically_Annotated_file_lists"
IMAGES = "Automatically_Annotated_Images"
LIST_FILE = "automatically_annotated.csv"

_LISTS_NAMES = frozenset({LISTS.lower(), LISTS.lower().removesuffix("s")})
_IMAGES_NAMES = frozenset({IMAGES.lower()})


def _find(source: Source) -> str | None:
    found = [name for name in source.folders() if name.lower() in _LISTS_NAMES | _IMAGES_NAMES]
    return " and ".join(found) if found else None


def _read(source: Source) -> Iterator[Row]:
    folders = source.folders()
    lists = next((name for name in folders if name.lower() in _LISTS_NAMES), None)
    images = next((name for name in folders if name.lower() in _IMAGES_NAMES), None)
    if lists is None or images is None:
        lacking = LISTS if lists is None else IMAGES
        raise broken(source.path(lacking), "no such folder", LAYOUT.wanted)
    list_file = next((name for name in source.files(lists) if name.lower() == LIST_FILE), None)
    if list_file is None:
        raise broken(source.path(lists, LIST_FILE), "no such list", LAYOUT.wanted)
    yield from read_affectnet_list(source, f"{lists}/{list_file}", images=images)


LAYOUT = Layout(
    wanted=f"{LISTS}/{LIST_FILE} and {IMAGES}/",
    find=_find,
    read=_read,
    is_held_out=lambda source_list: False,
)
