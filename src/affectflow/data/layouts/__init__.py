"""The layouts in which face data comes: one module each, listed here by name.

To add one, write ``layouts/<name>.py`` with a ``LAYOUT`` and name it in :data:`LAYOUTS`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from affectflow.data.layouts import automatic, folder, manual, npy, table
from affectflow.data.layouts.base import Layout
from affectflow.data.sources import Source, open_source
from affectflow.errors import DataError, SettingsError, what_got_wanted

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "manual": manual.LAYOUT,
        "automatic": automatic.LAYOUT,
        "npy": npy.LAYOUT,
        "folder": folder.LAYOUT,
        "csv": table.LAYOUT,
    }
)

AUTO = "auto"


def find_layout(place: str | Path | Source, name: str = AUTO) -> str:
    """Return the name of the layout to read a source with.

    Args:
        place: the source: a folder or ``s3://bucket/prefix``.
        name: one of :data:`LAYOUTS`, returned as it is, or ``"auto"``: the only one that is recognised.

    Raises:
        DataError: there is no such source, or ``auto`` recognises none or several layouts.
        SettingsError: there is no layout of this name.
        StorageError: the source cannot be reached or read.
    """
    if name != AUTO and name not in LAYOUTS:
        raise SettingsError(
            what_got_wanted(
                "--layout", got=repr(name), wanted=f"one of auto, {', '.join(LAYOUTS)}", do="pass one of them"
            )
        )
    source = open_source(place)
    source.check()
    if name != AUTO:
        return name
    found = {key: what for key, layout in LAYOUTS.items() if (what := layout.find(source)) is not None}
    if len(found) == 1:
        return next(iter(found))
    if found:
        got = "several layouts: " + "; ".join(f"{key} ({what})" for key, what in found.items())
        raise DataError(
            what_got_wanted(str(source), got=got, wanted="exactly one", do="pass --layout with the right one")
        )
    entries = sorted([*source.folders(), *source.files()])
    got = "only " + ", ".join(entries[:5]) + (", …" if len(entries) > 5 else "") if entries else "nothing"
    wanted = "; or ".join(f"{key}: {layout.wanted}" for key, layout in LAYOUTS.items())
    raise DataError(
        what_got_wanted(str(source), got=got, wanted=wanted, do="pass the folder of the dataset itself")
    )
