"""Tells a machine that has run out of something from a fault of ours: a full disk, too little memory."""

import errno

from affectflow.errors import FULL_DISK, what_got_wanted

_DISK_WORDS = ("no space left on device", "disk quota exceeded", "os error 28")
_MEMORY_WORDS = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc", "out of memory",
    "can't start new thread", "failed to allocate", "unable to allocate", "resource temporarily unavailable",
    "defaultcpuallocator", "could not create a primitive", "dataloader timed out", "mmap() failed",
    "failed to map segment",
)  # fmt: skip


def shortage(error: BaseException) -> str | None:
    """Return the one line for an error that a full disk or a lack of memory caused; None for any other.

    Libraries raise errors of many types for both, often while they handle another: the whole chain is looked at.
    """
    for one in _chain(error):
        text = str(one).lower()
        if getattr(one, "errno", None) in FULL_DISK or any(word in text for word in _DISK_WORDS):
            return what_got_wanted(
                _file_of(one) or "the disk",
                got="a full disk",
                wanted="room to write",
                do="free some, and run again; what was finished before is as it was",
            )
        if isinstance(one, MemoryError) or _is_memory(one, text):
            return what_got_wanted(
                "memory",
                got=f"too little ({type(one).__name__}: {str(one)[:120] or 'none left'})",
                wanted="more",
                do="lower --batch-size or --workers where the step has them, or give it more; "
                "what was finished before is as it was",
            )
    return None


def _is_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN):
        return True
    return isinstance(error, OSError | RuntimeError | ImportError) and any(word in text for word in _MEMORY_WORDS)


def _file_of(error: BaseException) -> str:
    return str(getattr(error, "filename", None) or "")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    next_one: BaseException | None = error
    while next_one is not None and next_one not in found:
        found.append(next_one)
        next_one = next_one.__cause__ or next_one.__context__
    return found
