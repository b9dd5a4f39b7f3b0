"""How the C library keeps memory for a process that trains on the CPU."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def keep_freed_memory() -> bool:
    """Let this process keep memory that it frees, for the next step's tensors.

    glibc maps each large tensor anew and gives it back when it is freed, so that the kernel clears the same pages
    in every step. What the process holds does not fall between steps any more. Other C libraries are left as they
    are.

    Returns:
        whether the C library took it.
    """
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))
    taken = [_glibc("mallopt", option, value) for option, value in settings]
    return all(taken)


def give_back_freed_memory() -> None:
    """Give what is kept back to the system, before processes are forked, which would share and so double it."""
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> bool:
    """Call a function of glibc's allocator; return whether there is one and it returned 1."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
    return function is not None and function(*arguments) == 1
