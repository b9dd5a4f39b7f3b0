"""Send a pipeline to Kubeflow: ``python -m pipelines.submit --endpoint URL train_one --data-source DIR``.

It is compiled and uploaded, as a new version where the pipeline is there already; the same version is used again.
The token is read from KFP_TOKEN, a file of CA certificates from KFP_SSL_CA_CERT. Exit codes: 0 sent (with --wait:
the run succeeded), 1 the run failed (with --wait), 2 something to mend.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import certifi
import kfp_server_api
import urllib3
from kfp.client import Client
from kfp.dsl.base_component import BaseComponent

from affectflow import __version__
from affectflow.artifacts import sha256_file
from affectflow.command_line import OneLineParser
from affectflow.errors import USER_ERROR, AffectflowError, SettingsError, StorageError, what_got_wanted
from affectflow.progress import say, warn
from affectflow.storage import is_s3
from pipelines.compile_settings import compile_flags, set_compile_settings
from pipelines.digests import DIGEST_PARAMETERS, add_digests
from pipelines.flags import add_pipeline_flags, parse_parameters

TOKEN_VARIABLE = "KFP_TOKEN"  # noqa: S105 - the variable's name
CA_VARIABLE = "KFP_SSL_CA_CERT"

RUN_FAILED = 1

#: How long the endpoint may take to answer the first question, which says whether it is one.
PROBE_SECONDS = 10.0

#: Between two looks at a run; and how many looks in a row may find the endpoint away before waiting ends.
POLL_SECONDS = 5.0
LOST_LOOKS = 12

_ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
_EQUALS = 1  # of KFP's filter operations


class EndpointError(AffectflowError):
    """The KFP endpoint is away, refuses us, or refuses what we sent."""


def main(argv: Sequence[str] | None = None) -> int:
    """Submit the pipeline that ``argv`` names and return the exit code."""
    settled = compile_flags()
    set_compile_settings(settled.parse_known_args(argv)[0])
    from pipelines.registry import PIPELINES

    parser = OneLineParser(prog="python -m pipelines.submit", description=__doc__, parents=[settled])
    parser.add_argument(
        "--endpoint", required=True, help="where KFP answers, e.g. https://kfp.example.com/pipeline"
    )
    parser.add_argument("--experiment", default="affectflow", help="made if it is missing [default: affectflow]")
    parser.add_argument("--namespace", default="", help="the profile's namespace, where KFP has several users")
    parser.add_argument("--wait", action="store_true", help="follow the run; exit 0 if it succeeds, 1 if not")
    add_pipeline_flags(parser, PIPELINES)
    flags, parameters = parse_parameters(parser, PIPELINES, argv)
    pipeline = PIPELINES[flags.pipeline]
    try:
        parameters = add_known_digests(parameters)
        with _endpoint_errors(flags.endpoint):
            client = connect(flags.endpoint, namespace=flags.namespace)
            namespace = flags.namespace or client.get_user_namespace() or None
            run_id = submit(client, pipeline, parameters, experiment=flags.experiment, namespace=namespace)
            if flags.wait and follow(client, run_id) != "SUCCEEDED":
                return RUN_FAILED
    except AffectflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def add_known_digests(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with digests of the paths that lie on this machine; say which do not.

    A digest that was given stays as it is.
    """
    found = {}
    for name, digest_name in DIGEST_PARAMETERS.items():
        value = parameters.get(name, "")
        if value in ("", "synthetic") or digest_name in parameters:
            continue
        try:
            if is_s3(value) or Path(value).exists():
                found.update(add_digests({name: value}))
                continue
            reason = "is not on this machine"
        except StorageError as error:
            reason = f"cannot be read from here ({error})"
        flag = digest_name.replace("_", "-")
        say(f"{value} {reason}: cached results will not follow its content unless --{flag} is passed")
    return {**parameters, **found}


def connect(endpoint: str, *, namespace: str = "") -> Client:
    """Return a client of a KFP endpoint that has answered.

    Args:
        endpoint: URL, ``http://`` or ``https://``.
        namespace: the profile's, or empty.

    Raises:
        SettingsError: a URL, token or CA file that cannot be one.
        EndpointError: it refuses us, or it is not KFP.
        urllib3.exceptions.HTTPError: nothing answers there.
    """
    endpoint = endpoint.rstrip("/")
    if not endpoint.startswith(("http://", "https://")):
        wanted = "a URL that starts with http:// or https://"
        raise SettingsError(what_got_wanted("--endpoint", got=endpoint, wanted=wanted, do="write it in full"))
    token, ca_file = os.environ.get(TOKEN_VARIABLE, "").strip(), os.environ.get(CA_VARIABLE, "")
    if not token.isascii() or any(not 32 < ord(character) < 127 for character in token):
        wanted = "printable ASCII without spaces"
        raise SettingsError(
            what_got_wanted(TOKEN_VARIABLE, got="other characters", wanted=wanted, do="set it to the bare token")
        )
    if ca_file and not Path(ca_file).is_file():
        wanted = "a file of CA certificates (PEM) that exists"
        raise SettingsError(what_got_wanted(CA_VARIABLE, got=ca_file, wanted=wanted, do="check its path"))
    _probe(endpoint, token, ca_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "works only with KFP 2"
        return Client(
            host=endpoint,
            existing_token=token or None,
            ssl_ca_cert=ca_file or None,
            **({"namespace": namespace} if namespace else {}),
        )


def submit(
    client: Client,
    pipeline: BaseComponent,
    parameters: dict[str, Any],
    *,
    experiment: str,
    namespace: str | None = None,
) -> str:
    """Upload what is not there yet, start a run and return its id; the SDK prints the links of what it makes."""
    pipeline_id, version_id = _upload(client, pipeline, namespace)
    run = client.run_pipeline(
        client.create_experiment(experiment, namespace=namespace).experiment_id,
        f"{pipeline.name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        params=parameters,
        pipeline_id=pipeline_id,
        version_id=version_id,
    )
    return str(run.run_id)


def follow(client: Client, run_id: str) -> str:
    """Wait until a run has ended, say its states, and return the last one.

    The SDK's own waiting knows no cancelled runs and asks Google for another token when one has run out.
    """
    said, lost = "", 0
    while True:
        try:
            run = client.get_run(run_id)
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            lost += 1
            gone = not isinstance(error, kfp_server_api.ApiException) or error.status >= 500
            if not gone or lost == LOST_LOOKS:
                warn(f"run {run_id} goes on without being followed")
                raise
        else:
            lost = 0
            if run.state and run.state != said:
                said = run.state
                say(f"run {run_id}: {said}")
            if said in _ENDED:
                break
        time.sleep(POLL_SECONDS)
    if said != "SUCCEEDED":
        steps = [step for step in getattr(run.run_details, "task_details", None) or [] if step.state == "FAILED"]
        names = ", ".join(str(step.display_name) for step in steps) or "not named by KFP"
        print(f"error: the run ended as {said}; steps that failed: {names}", file=sys.stderr)  # noqa: T201
    return said


def _upload(client: Client, pipeline: BaseComponent, namespace: str | None) -> tuple[str, str]:
    """Return the ids of the pipeline and of the version that holds this very spec; make what is missing."""
    from kfp import compiler

    listed = client.list_pipelines(filter=_named(pipeline.name), namespace=namespace).pipelines
    if listed:
        pipeline_id = listed[0].pipeline_id
    else:
        # Not upload_pipeline: it would make a first version that bears the pipeline's name.
        wanted = kfp_server_api.V2beta1Pipeline(
            name=pipeline.name,
            display_name=pipeline.name,
            description=pipeline.description,
            namespace=namespace,
        )
        pipeline_id = client.pipelines.pipeline_service_create_pipeline(wanted).pipeline_id
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{pipeline.name}.yaml"
        compiler.Compiler().compile(pipeline, package_path=str(file))
        version = f"{__version__}-{sha256_file(file)[:12]}"
        versions = client.list_pipeline_versions(pipeline_id, filter=_named(version)).pipeline_versions
        if versions:
            say(f"{pipeline.name} {version} is there already")
            return pipeline_id, versions[0].pipeline_version_id
        say(f"uploading {pipeline.name} {version}")
        uploaded = client.upload_pipeline_version(str(file), version, pipeline_id=pipeline_id)
    return pipeline_id, uploaded.pipeline_version_id


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": _EQUALS, "key": "display_name", "stringValue": name}]})


def _probe(endpoint: str, token: str, ca_file: str) -> None:
    """Ask the endpoint once whether it is KFP: the SDK would ask five times, and print a traceback each time."""
    trusted = ca_file or certifi.where()  # as the SDK does
    pool = urllib3.PoolManager(timeout=PROBE_SECONDS, retries=False, ca_certs=trusted)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = pool.request("GET", f"{endpoint}/apis/v2beta1/healthz", headers=headers, redirect=False)
    try:
        is_kfp = isinstance(answer.json(), dict)
    except ValueError:
        is_kfp = False
    if answer.status in (401, 403):
        raise _refused(endpoint, answer.status)
    if answer.status != 200 or not is_kfp:
        got = f"status {answer.status}" + ("" if is_kfp else " and no JSON, as from a login page")
        do = f"check the URL (often .../pipeline), and set {TOKEN_VARIABLE} where the cluster asks for a login"
        raise EndpointError(what_got_wanted(endpoint, got=got, wanted="an answer of KFP's API v2beta1", do=do))


@contextlib.contextmanager
def _endpoint_errors(endpoint: str) -> Iterator[None]:
    """Turn what the SDK raises where the endpoint is away or refuses something into one line."""
    try:
        yield
    except kfp_server_api.ApiException as error:
        if error.status in (401, 403):
            raise _refused(endpoint, error.status) from None
        got = f"status {error.status}: {_reason(error)}"
        do = "mend what it names, or look into the log of ml-pipeline"
        raise EndpointError(what_got_wanted(endpoint, got=got, wanted="acceptance", do=do)) from None
    except urllib3.exceptions.HTTPError as error:
        reason = getattr(error, "reason", None) or error
        got = "no TLS connection" if isinstance(reason, urllib3.exceptions.SSLError) else "no answer"
        do = f"check the URL, the port-forward, and {CA_VARIABLE} where the cluster has its own CA"
        raise EndpointError(
            what_got_wanted(endpoint, got=f"{got} ({type(reason).__name__})", wanted="KFP's API", do=do)
        ) from None


def _reason(error: kfp_server_api.ApiException) -> str:
    """Return what KFP says of an error, without a token that it might have sent back."""
    try:
        text = str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        text = str(error.reason)
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    return (text.replace(token, "[token]") if token else text)[:300]


def _refused(endpoint: str, status: int) -> EndpointError:
    sent = "a token" if os.environ.get(TOKEN_VARIABLE, "").strip() else "no token"
    if status == 401:
        do = f"set {TOKEN_VARIABLE} to a token that is still valid"
    else:
        do = "pass --namespace with a profile that you may use, or ask for the right to run pipelines in it"
    return EndpointError(what_got_wanted(endpoint, got=f"status {status} to {sent}", wanted="to be let in", do=do))


if __name__ == "__main__":
    raise SystemExit(main())
