"""The steps of the pipelines; each folder is one component, and a command by itself."""

import os


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


_import_kfp_without_its_client()
