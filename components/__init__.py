"""The steps of the pipelines; each folder is one component, and a command by itself."""

import atexit
import gc
import os


def _collect_garbage_rarely() -> None:
    """Let Python look for cyclic garbage after 50,000 new objects instead of 700, and at exit not at all.

    Importing MLflow and torch makes half a million objects, none of them garbage; to walk them again and again,
    and once more at exit, is half of what a short step takes.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def _import_kfp_without_its_client() -> None:
    """Import kfp as its launcher does in a container: without the client, which brings in Kubernetes' whole API.

    That third of a second is more than the work of some steps. ``pipelines.submit`` imports the client itself.
    """
    before = os.environ.get("_KFP_RUNTIME")
    os.environ["_KFP_RUNTIME"] = "true"
    try:
        import kfp  # noqa: F401
    finally:
        if before is None:
            del os.environ["_KFP_RUNTIME"]
        else:
            os.environ["_KFP_RUNTIME"] = before


_collect_garbage_rarely()
_import_kfp_without_its_client()
