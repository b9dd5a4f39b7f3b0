"""Check at a step's start what lies around it, so that it fails then and not after hours.

Where a server is away for a moment, the checks try again with growing pauses; a wrong password, host or key is an
error at once. Each error is one line that names the setting to mend.
"""

import http.client
import logging
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from affectflow.errors import SettingsError, StorageError, TrackingError, what_got_wanted
from affectflow.progress import warn
from affectflow.storage import is_s3, open_storage
from affectflow.tracked_run import tracking_uri
from affectflow.tracking import TRACKING_VARIABLE

Result = TypeVar("Result")

#: How long a server may be away before a step gives up, in seconds.
PATIENCE_VARIABLE = "AFFECTFLOW_RETRY_SECONDS"
_PATIENCE = 120.0
_REQUEST_SECONDS = 30.0

#: HTTP statuses of a fault that may pass.
_AWAY = (429, 500, 502, 503, 504)

#: Settings that name a folder to which a step writes, whatever else it does.
_WRITTEN_FOLDERS = ("checkpoint_dir", "shared_dir")


class AwayError(Exception):
    """A server is away, or has a fault of its own that may pass: refused, timed out, status 429, 500 to 504."""


def check_surroundings(settings: Mapping[str, Any]) -> None:
    """Check the tracking server, S3, folders and accelerators that a step is going to need.

    Args:
        settings: the step's own, by name.

    Raises:
        TrackingError: the tracking server is not set, away, or refuses us.
        SettingsError: of anything else.
    """
    _check_tracking()
    for name, value in settings.items():
        if isinstance(value, str) and value:
            written = name in _WRITTEN_FOLDERS
            if written or is_s3(value):
                _check_storage(name, value, written=written)
    _check_accelerator()


def with_patience(ask: Callable[[], Result], *, who: str) -> Result:
    """Return what ``ask`` returns; where it raises :class:`AwayError`, try again with growing pauses.

    Args:
        ask: may be called several times.
        who: is asked, for the lines that say so.

    Raises:
        AwayError: it was away for all the time that AFFECTFLOW_RETRY_SECONDS gives it.
    """
    import stamina

    logging.getLogger("stamina").setLevel(logging.ERROR)  # we say it ourselves
    patience = float(os.environ.get(PATIENCE_VARIABLE, _PATIENCE))
    attempts = stamina.retry_context(
        on=AwayError, attempts=None, timeout=patience, wait_initial=0.5, wait_max=20.0, wait_jitter=0.5
    )
    for attempt in attempts:
        with attempt:
            if attempt.num > 1:
                warn(f"{who} is away; attempt {attempt.num}")
            return ask()
    raise AssertionError("unreachable: an attempt returns or raises")


def _check_tracking() -> None:
    uri, wanted = tracking_uri(), os.environ.get(TRACKING_VARIABLE) in ("required", "strict")
    if not uri and wanted:
        raise TrackingError(
            what_got_wanted(
                "MLFLOW_TRACKING_URI",
                got="nothing",
                wanted="the address of the MLflow server",
                do="set the key mlflow-tracking-uri of the ConfigMap affectflow in the run's namespace",
            )
        )
    if not uri.startswith("http"):
        return
    try:
        with_patience(lambda: _ask_mlflow(uri.rstrip("/")), who=f"MLflow at {uri}")
    except AwayError as error:
        line = what_got_wanted(
            f"MLflow at {uri}",
            got=str(error),
            wanted="a server that answers",
            do="check MLFLOW_TRACKING_URI, and whether the server runs",
        )
        if wanted:
            raise TrackingError(line) from None
        warn(f"{line}; a step whose run is known goes on without it")


def _ask_mlflow(uri: str) -> None:
    """Ask for an experiment and for a list of files, so that login, host and the server's S3 are all tried."""
    status, body = _get(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1")
    if status in _AWAY:
        raise AwayError(f"status {status} {http.client.responses[status]}")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if status == 401:
        raise _refused(
            uri,
            f"status 401 to {'user ' + user if user else 'no user'}",
            "to be let in",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (Secret kfp-mlflow-credentials: username, "
            "password)",
        )
    if status == 403 and "host" in body.lower():
        host = uri.partition("://")[2].partition("/")[0]
        raise _refused(
            uri, f"status 403 to host {host}", "to be let in", f"add {host} to the server's --allowed-hosts"
        )
    if status != 200:
        raise _refused(
            uri, f"status {status}", "MLflow's API", "check that MLFLOW_TRACKING_URI is a server of MLflow"
        )
    status, body = _get(f"{uri}/api/2.0/mlflow-artifacts/artifacts?path=affectflow-preflight")
    # A server whose clients write to S3 themselves answers 503 and says so.
    if status in _AWAY and "serve-artifacts" not in body:
        raise AwayError(
            f"status {status} when it lists files: check S3 address, bucket and keys of the MLflow server itself "
            "(Secret affectflow-s3)"
        )


def _refused(uri: str, got: str, wanted: str, do: str) -> TrackingError:
    return TrackingError(what_got_wanted(f"MLflow at {uri}", got=got, wanted=wanted, do=do))


def _get(url: str) -> tuple[int, str]:
    """Ask as MLflow's client would, without importing it: that alone takes longer than most of these checks."""
    import urllib3

    login, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    headers = {}
    if login:
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
        headers = dict(urllib3.make_headers(basic_auth=f"{login}:{password}"))
    elif token:
        headers = {"Authorization": f"Bearer {token}"}
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true"
    authority = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or os.environ.get("REQUESTS_CA_BUNDLE")
    pool = urllib3.PoolManager(
        retries=False,
        timeout=_REQUEST_SECONDS,
        ca_certs=authority or None,
        cert_reqs="CERT_NONE" if insecure else "CERT_REQUIRED",
    )
    try:
        answer = pool.request("GET", url, headers=headers)
    except urllib3.exceptions.HTTPError as error:
        raise AwayError(f"no answer ({type(getattr(error, 'reason', None) or error).__name__})") from None
    return answer.status, answer.data[:2000].decode("utf-8", "replace")


def _check_storage(name: str, root: str, *, written: bool) -> None:
    probe = f".preflight-{uuid.uuid4().hex}"
    storage = open_storage(root)
    try:
        if written:
            storage.write(f"{probe}/empty", b"")
            storage.delete(probe)
        else:
            storage.exists(probe)
    except StorageError as error:
        flag = "--" + name.replace("_", "-")
        access = f"writable for user {os.getuid()}" if written else "readable"
        hint = "Secret affectflow-s3, ConfigMap affectflow" if is_s3(root) else f"a volume that is {access}"
        raise SettingsError(f"{flag}: {error} ({hint})") from None


def _check_accelerator() -> None:
    """Check that a GPU that the pod was given can be used; else training would quietly go on without it."""
    given = os.environ.get("NVIDIA_VISIBLE_DEVICES", "")
    torch = sys.modules.get("torch")  # there where the step trains or evaluates
    if torch is None or given in ("", "void", "none", "all") or torch.cuda.is_available():
        return
    built = torch.version.cuda or "no CUDA at all"
    raise SettingsError(
        what_got_wanted(
            "the pod's GPU",
            got=f"torch built for {built} that cannot use it",
            wanted="a torch that can",
            do="use an image with CUDA and a node whose driver supports it, or set pod_accelerator_count to 0",
        )
    )
