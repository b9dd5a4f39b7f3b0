"""Read a pickle that holds numpy arrays and plain containers, and nothing else; no code of the file is run.

A pickle names functions to call. Here each admitted name leads to a function of this module that checks what
it is called with; every other name is refused. Admitted is what numpy writes for an array, from Python 2's
protocol 2 (text in latin-1) to protocol 5.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from affectflow.errors import WeightsError, what_got_wanted


def read_array_pickle(path: Path) -> Any:
    """Return the value of a pickle of plain containers and numpy arrays of numbers.

    Raises:
        WeightsError: the pickle asks for anything else, or is broken.
    """
    try:
        with path.open("rb") as stream:
            return _ArrayUnpickler(stream, encoding="latin1").load()
    except _RefusedError as error:
        raise WeightsError(
            what_got_wanted(
                str(path),
                got=f"a pickle that asks for {error}, which can run code when loaded",
                wanted="numpy arrays and plain containers only",
                do="where you trust the file, load it in the code that wrote it and save its tensors as "
                "safetensors, or its state dict with torch.save",
            )
        ) from None
    except Exception as error:  # a broken pickle raises almost anything
        raise WeightsError(
            what_got_wanted(
                str(path),
                got=f"a broken pickle ({type(error).__name__}: {error})",
                wanted="a whole file",
                do="download or copy it again",
            )
        ) from None


class _RefusedError(Exception):
    """The pickle asked for something that is not admitted; its text says for what."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("an object outside the file")


class _ArrayType:
    """Stands for numpy.ndarray where a pickle names it, and cannot be called."""

    def __new__(cls, *_: Any) -> "_ArrayType":
        raise _RefusedError("a call of numpy.ndarray")


def _new_array(kind: type, shape: tuple[int, ...], code: object) -> npt.NDArray[Any]:
    # An empty array, as numpy's own pickles make; its state (shape, type, bytes) follows in the file.
    if kind is not _ArrayType or shape != (0,):
        raise _RefusedError("an array of an unusual kind")
    return np.ndarray((0,), "b")


def _new_dtype(code: str, align: int = 0, copy: int = 1) -> np.dtype[Any]:
    dtype = np.dtype(code, False, True)  # a copy: the byte order that follows in the file is set on it
    if dtype.kind not in "biuf":
        raise _RefusedError(f"values of type {code!r}")
    return dtype


def _array_of_buffer(
    buffer: bytes | bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
) -> npt.NDArray[Any]:
    return np.frombuffer(bytes(buffer), dtype=dtype).reshape(shape, order="F" if order == "F" else "C")


def _new_bytes(text: str, encoding: str) -> bytes:
    # Protocol 2 writes bytes as latin-1 text.
    if encoding not in {"latin1", "latin-1"}:
        raise _RefusedError(f"text in {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    # Protocol 2 writes empty bytes as a call of bytes().
    return b""


_ADMITTED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _new_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _new_array,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("_codecs", "encode"): _new_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
