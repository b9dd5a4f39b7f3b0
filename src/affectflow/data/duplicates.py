"""Faces of the same content: which belong together, and which of them carry several labels."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Texts = Sequence[str] | NDArray[np.object_]

_HASH_BITS = 64
_NAME_DIGITS = 16


def find_groups(sha256: Texts, crop_sha256: Texts, look: NDArray[np.integer] | None = None) -> list[str]:
    """Return a group for every face: faces that share a source, a crop or a look, directly or by others, share it.

    Args:
        sha256: of every face's source file, (N,).
        crop_sha256: of every face's pixels, (N,).
        look: number of every face's look, (N,), as :func:`find_looks` gives it; ``None`` to leave looks aside.

    Returns:
        (N,) names: the group's smallest ``sha256`` (16 digits), whatever the order of rows. Splits are drawn by
        these names, so they are of source files: other decoders and settings of the crop leave the draw as it is.
    """
    if not len(sha256):
        return []
    # Sorted, so that the smallest number of a group is its smallest digest.
    sources, digests = pd.factorize(np.asarray(sha256, dtype=object), sort=True)
    crops, distinct = pd.factorize(np.asarray(crop_sha256, dtype=object))
    links: list[NDArray[Any]] = [crops + len(digests)]
    if look is not None:
        links.append(look + len(digests) + len(distinct))
    group = _components(np.tile(sources, len(links)), np.concatenate(links))[: len(digests)]
    smallest = np.full(len(digests), len(digests))
    np.minimum.at(smallest, group, np.arange(len(digests)))
    return [str(name)[:_NAME_DIGITS] for name in digests[smallest[group[sources]]]]


def find_looks(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.intp]:
    """Number the looks of faces: hashes at most ``distance`` bits apart, directly or by others, share one.

    Args:
        hashes: perceptual hashes, (N,).
        distance: Hamming distance, 0 to 63.

    Shape:
        returns (N,), numbers from 0.
    """
    distinct, face = np.unique(hashes, return_inverse=True)
    pairs = list(_near_pairs(distinct, distance)) if distance else []
    if not pairs:
        return face.astype(np.intp)
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    everyone = np.arange(len(distinct))
    return _components(np.concatenate([everyone, one]), np.concatenate([everyone, other]))[face]


def _near_pairs(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield places of distinct hashes that differ in at most ``distance`` bits.

    The bits are cut into ``distance + 1`` bands: two such hashes are equal in one of them, so that only hashes
    of an equal band are compared.
    """
    edges = np.linspace(0, _HASH_BITS, distance + 2).astype(np.uint64)
    for low, high in itertools.pairwise(edges):
        band = (hashes >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        order = np.argsort(band, kind="stable")
        band, ordered = band[order], hashes[order]
        # Compare each with its next, then with the one after that, as long as their band is equal.
        left, step = np.arange(len(hashes)), 1
        while True:
            left = left[left + step < len(hashes)]
            left = left[band[left] == band[left + step]]
            if not len(left):
                break
            near = left[np.bitwise_count(ordered[left] ^ ordered[left + step]) <= distance]
            yield order[near], order[near + step]
            step += 1


def _components(one: NDArray[np.integer], other: NDArray[np.integer]) -> NDArray[np.intp]:
    """Number the connected parts of a graph that is given by its edges."""
    size = int(max(one.max(), other.max())) + 1
    graph = coo_array((np.ones(len(one), dtype=np.int8), (one, other)), shape=(size, size))
    part: NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return part


def conflicting(crop_sha256: Texts, expression: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which faces have the same pixels as one with another label, (N,)."""
    labels = pd.Series(expression, dtype="int64").groupby(np.asarray(crop_sha256, dtype=object))
    found: NDArray[np.bool_] = (labels.transform("nunique") > 1).to_numpy(bool)
    return found
