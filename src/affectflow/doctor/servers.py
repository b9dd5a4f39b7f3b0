"""MLflow, an S3 store and a KFP endpoint."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from affectflow.doctor.check import Finding

#: How long a server may take to answer.
ANSWER_SECONDS = 10


def check_mlflow(uri: str) -> Iterator[Finding]:
    """Ask the tracking server for its experiments; a local database is looked at and not made."""
    shown = without_password(uri)
    if uri.startswith("sqlite:///"):
        file = Path(uri.removeprefix("sqlite:///"))
        if not file.exists():
            yield Finding("MLflow", "note", f"{shown} is not there yet", "run `make demo`: the first run makes it")
            return
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            whole = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if whole != "ok":
            yield Finding("MLflow", "bad", f"{shown}: {whole}", "put back a copy of the file, or move it away")
            return
    elif uri.startswith("http"):
        refusal = _refusal_of_mlflow(uri)
        if refusal:
            yield refusal
            return
    from affectflow.tracking import count_experiments

    os.environ["MLFLOW_TRACKING_URI"] = uri
    count = count_experiments()
    yield Finding("MLflow", "ok", f"{shown} answers: {count} experiment{'s' if count != 1 else ''}")


def _refusal_of_mlflow(uri: str) -> Finding | None:
    """Ask the server once: MLflow's own client would ask many times before it gives up."""
    import urllib3

    try:
        answer = urllib3.request(
            "GET",
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1",
            timeout=float(ANSWER_SECONDS),
            retries=False,
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        mend = "check the URL and the port-forward; `make ui` starts a server here"
        return Finding("MLflow", "bad", f"{without_password(uri)}: no answer ({_reason(error)})", mend)
    if answer.status == 403:
        mend = "start the server with this host and port in --allowed-hosts"
        return Finding("MLflow", "bad", f"{without_password(uri)}: status 403", mend)
    return None


def _reason(error: Exception) -> str:
    return type(getattr(error, "reason", None) or error).__name__


def check_s3(url: str) -> Iterator[Finding]:
    """List a bucket's prefix with the credentials that boto3 finds."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.lstrip("/")
    if parts.scheme != "s3" or not bucket:
        yield Finding("S3", "bad", f"got {url}, wanted s3://bucket/prefix", "write it in full")
        return
    config = Config(connect_timeout=ANSWER_SECONDS, read_timeout=ANSWER_SECONDS, retries={"total_max_attempts": 1})
    try:
        client = boto3.Session().client("s3", config=config)
        place = client.meta.endpoint_url
        answer = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except NoCredentialsError:
        mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in AWS_PROFILE"
        yield Finding("S3", "bad", f"{url}: no credentials", mend)
    except ClientError as error:
        yield Finding("S3", "bad", f"{url} at {place}: {_code(error)}", _mend_s3(_code(error)))
    except BotoCoreError as error:
        mend = "check AWS_ENDPOINT_URL_S3 (unset for AWS itself), the network and AWS_CA_BUNDLE"
        yield Finding("S3", "bad", f"{url}: {' '.join(str(error).split())[:200]}", mend)
    else:
        if answer.get("KeyCount", 0):
            yield Finding("S3", "ok", f"{url} at {place} can be listed")
        else:
            yield Finding("S3", "note", f"{url} at {place} is empty", "check the prefix")


def _code(error: Exception) -> str:
    response = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
    return f"{response.get('Error', {}).get('Code', 'unknown')} ({status})"


def _mend_s3(code: str) -> str:
    if "NoSuchBucket" in code:
        return "make the bucket, or check its name"
    if "InvalidAccessKeyId" in code or "SignatureDoesNotMatch" in code:
        return "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    return "ask for the right to list and read this prefix"


def check_kfp(endpoint: str) -> Iterator[Finding]:
    """Ask a KFP endpoint whether it is one and lets us in; the token is read from KFP_TOKEN."""
    import certifi
    import urllib3

    endpoint = endpoint.rstrip("/")
    token = os.environ.get("KFP_TOKEN", "").strip()
    authority = os.environ.get("KFP_SSL_CA_CERT") or certifi.where()
    pool = urllib3.PoolManager(timeout=float(ANSWER_SECONDS), retries=False, ca_certs=authority)
    try:
        answer = pool.request(
            "GET",
            f"{endpoint}/apis/v2beta1/healthz",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        mend = "check the URL, the port-forward, and KFP_SSL_CA_CERT where the cluster has its own CA"
        yield Finding("KFP", "bad", f"{endpoint}: no answer ({_reason(error)})", mend)
        return
    try:
        is_kfp = isinstance(answer.json(), dict)
    except ValueError:
        is_kfp = False
    if answer.status in (401, 403):
        mend = "set KFP_TOKEN to a token that is valid and may run pipelines"
        yield Finding("KFP", "bad", f"{endpoint}: status {answer.status}", mend)
    elif answer.status != 200 or not is_kfp:
        found = f"{endpoint}: status {answer.status}{'' if is_kfp else ', not JSON'}, wanted KFP's API v2beta1"
        yield Finding("KFP", "bad", found, "check the URL (often …/pipeline)")
    else:
        yield Finding("KFP", "ok", f"{endpoint} answers as KFP")


def without_password(uri: str) -> str:
    """Return a URI that may be shown: the password in it, if any, is left out.

    Example:
        >>> without_password("postgresql://mlflow:secret@db:5432/mlflow")
        'postgresql://mlflow:***@db:5432/mlflow'
    """
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    return uri.replace(f":{parts.password}@", ":***@", 1)
