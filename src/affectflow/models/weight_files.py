"""Read a file of pre-trained weights into ``{name: tensor}``, never through an unrestricted unpickler."""

import contextlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from affectflow.errors import WeightsError, what_got_wanted
from affectflow.models.safe_pickle import read_array_pickle

#: The first bytes of a file that ``torch.save`` wrote before it wrote zip files: a pickled magic number.
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

#: Keys under which training scripts keep the weights in a larger checkpoint, the best first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_weights_metadata(path: str | Path) -> dict[str, str]:
    """Return a safetensors file's metadata; empty for other files.

    Raises:
        WeightsError: no such file, or a broken one.
    """
    file = _existing(path)
    if not _is_safetensors(file):
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise _unreadable(file, str(error)) from None


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return a weights file's entries as they are in it, on the CPU.

    Takes safetensors, what ``torch.save`` wrote (a state dict, also within a checkpoint under ``state_dict`` or
    ``model``), and a pickle of numpy arrays. The prefix ``module.`` of parallel training is taken off.

    Raises:
        WeightsError: no such file, a broken or unsafe one, or one without a flat dict of finite numbers.
    """
    file = _existing(path)
    if _is_safetensors(file):
        try:
            with safe_open(file, framework="pt") as opened:
                value: Any = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise _unreadable(file, str(error)) from None
    elif _is_torch(file):
        value = _read_torch(file)
    else:
        value = read_array_pickle(file)
    return _flat(file, value)


def _read_torch(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = str(error).partition("GLOBAL ")[2].split(" ")[0]
        held = f"{asked}, a pickled module or object" if asked else "more than tensors, or is broken"
        raise WeightsError(
            what_got_wanted(
                str(file),
                got=f"a file that holds {held}, which can run code when loaded",
                wanted="a state dict of tensors",
                do="where you trust the file, load it in the code that wrote it and save "
                "module.state_dict() with torch.save or as safetensors",
            )
        ) from None
    except Exception as error:  # a broken file raises almost anything
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise _unreadable(file, reason) from None


def _flat(file: Path, value: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(wrapper), Mapping):
            value = value[wrapper]
            break
    if not isinstance(value, Mapping) or not value:
        raise _unreadable(file, f"a {type(value).__name__} instead of named weights")
    weights = {}
    for name, entry in value.items():
        tensor = _as_tensor(entry)
        if not isinstance(name, str) or tensor is None:
            raise _unreadable(file, f"an entry {name!r} of type {type(entry).__name__}")
        if not bool(torch.isfinite(tensor).all()):
            raise _unreadable(file, f"values in {name!r} that are not finite")
        if (known := name.removeprefix("module.")) in weights:
            raise _unreadable(file, f"two entries {known!r}, one of them under 'module.'")
        weights[known] = tensor
    return weights


def _as_tensor(entry: Any) -> Tensor | None:
    if isinstance(entry, np.ndarray) and entry.dtype.kind in "biuf":
        # A copy in the machine's own byte order.
        entry = torch.from_numpy(entry.astype(entry.dtype.newbyteorder("="), copy=True))
    if not isinstance(entry, Tensor) or entry.is_complex() or entry.is_quantized or entry.is_sparse:
        return None
    return entry


def _is_safetensors(file: Path) -> bool:
    # Its header is JSON after 8 bytes of length.
    with file.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _is_torch(file: Path) -> bool:
    with contextlib.suppress(zipfile.BadZipFile):  # raised for an archive in several parts
        if zipfile.is_zipfile(file):
            return True
    with file.open("rb") as stream:
        return stream.read(len(_OLD_TORCH) + 2)[2:] == _OLD_TORCH


def _existing(path: str | Path) -> Path:
    file = Path(path)
    if not file.is_file():
        raise WeightsError(
            what_got_wanted(str(file), got="no such file", wanted="pre-trained weights", do="pass the right path")
        )
    return file


def _unreadable(file: Path, got: str) -> WeightsError:
    return WeightsError(
        what_got_wanted(
            str(file),
            got=got,
            wanted="named weights as safetensors, a state dict of torch, or a pickle of numpy arrays",
            do="check that it is the right file and whole",
        )
    )
