"""Whether a network can be compiled with torch.compile here."""

import torch
from torch import Tensor

from affectflow.errors import SettingsError, what_got_wanted


def check_compiler(device: torch.device) -> None:
    """Compile a trifle: what is missing (a C++ compiler, Python's header files) shows only then.

    Raises:
        SettingsError: nothing can be compiled here.
    """
    try:
        torch.compile(_trifle)(torch.ones(2, device=device))
    except Exception as error:  # the compilers raise many kinds
        reason = str(error).strip().partition("\n")[0]
        raise SettingsError(
            what_got_wanted(
                "--compile-model",
                got=f"no way to compile here ({type(error).__name__}: {reason[:200]})",
                wanted="a C++ compiler (g++) and Python's header files",
                do="install them, e.g. g++ and python3-dev, or pass --no-compile-model",
            )
        ) from None


def _trifle(values: Tensor) -> Tensor:
    return values.sin() + 1
