"""Pictures that were set aside, as far as they can be seen, so that a person can judge the reasons."""

from affectflow.data.crops import salvage
from affectflow.data.faces import Faces
from affectflow.data.listing import Listing
from affectflow.data.quarantine import FaceError

_SIZE = 96


#: A small picture (``None`` where there is nothing to see) and what it is.
Shown = tuple[bytes | None, str]


def quarantined_pictures(listing: Listing, faces: Faces, *, each: int) -> dict[str, list[Shown]]:
    """Return the first few quarantined faces of every reason: a small picture, or ``None``, and what it is.

    Args:
        listing: what was read; its source is read again.
        faces: the dataset that was made from it.
        each: how many of each reason.

    Returns:
        by reason, in alphabetical order, pairs whose text is the path and, on a second line, list, row and detail.
    """
    folders = {row.source_list: row.folders for row in listing.quarantined}
    folders |= {face.source_list: face.folders for face in listing.faces}
    shown: dict[str, list[Shown]] = {}
    first = faces.quarantine.groupby("reason", sort=True).head(each).sort_values("reason", kind="stable")
    for row in first.itertuples():
        path, source_list = str(row.source_path), str(row.source_list)
        text = f"{path}\n{source_list or 'folder'}, row {row.source_row}: {row.detail}"
        shown.setdefault(str(row.reason), []).append((_picture(listing, folders[source_list], path), text))
    return shown


def _picture(listing: Listing, folders: tuple[str, ...], path: str) -> bytes | None:
    try:
        return salvage(listing.source.read(folders, path), _SIZE) if path else None
    except (FaceError, ValueError):
        return None
