"""One TrainJob of Kubeflow Trainer v2, through its SDK: submitted, followed, ended."""

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from affectflow.errors import AffectflowError, SettingsError, TrainingError, what_got_wanted
from affectflow.preflight import AwayError, with_patience
from affectflow.progress import say, warn

Result = TypeVar("Result")

#: Between two looks at a job.
POLL_SECONDS = 5.0

_ERROR = re.compile(r"^error: (?P<line>.*)$")
_STATUS_CONFLICT, _STATUS_MISSING, _STATUS_FORBIDDEN = 409, 404, 403


@dataclass(frozen=True)
class JobSpec:
    """What is run, and on what.

    Attributes:
        name: of the job; a job of this name that is there already is followed.
        namespace: where it runs; empty for the namespace of this pod.
        runtime: the TrainingRuntime.
        image: of the nodes' containers.
        command: of every node.
        nodes: how many.
        resources: of each node, by Kubernetes' names.
        environment: further variables, none of them secret.
        seconds: after which the cluster ends the job.
    """

    name: str
    namespace: str
    runtime: str
    image: str
    command: list[str]
    nodes: int
    resources: dict[str, str]
    environment: dict[str, str]
    seconds: int


def run_job(spec: JobSpec) -> None:
    """Submit a job, show what its first node says until it ends, and delete it, whatever happens.

    Raises:
        TrainingError: it failed; the line is the node's own where it printed one.
        SettingsError: the cluster refuses the job.
    """
    client = _connect(spec.namespace)
    with _ending_by_signal():
        try:
            _submit(client, spec)
            error_line = _follow(client, spec.name)
        finally:
            _delete(client, spec.name)
    if error_line is not None:
        raise TrainingError(
            error_line
            or what_got_wanted(
                f"TrainJob {spec.name}",
                got="a failure without a word",
                wanted="a model",
                do="look at its pods' events; if memory ran out, raise memory_per_node or lower batch_size",
            )
        )


def _connect(namespace: str) -> Any:
    from kubeflow.common.types import KubernetesBackendConfig
    from kubeflow.trainer import TrainerClient

    try:
        return TrainerClient(KubernetesBackendConfig(namespace=namespace or None))
    except Exception as error:
        raise SettingsError(
            what_got_wanted(
                "Kubernetes",
                got=f"{type(error).__name__}: {error}"[:200],
                wanted="a cluster to submit to",
                do="run this step in a pod, or set KUBECONFIG",
            )
        ) from None


def _submit(client: Any, spec: JobSpec) -> None:
    from kubeflow.trainer import CustomTrainerContainer
    from kubeflow.trainer.options import ActiveDeadlineSeconds, Labels, Name, TrainerCommand

    trainer = CustomTrainerContainer(
        image=spec.image,
        num_nodes=spec.nodes,
        resources_per_node=spec.resources,
        env=spec.environment or None,
    )
    options = [
        Name(spec.name),
        Labels({"app.kubernetes.io/part-of": "affectflow"}),
        TrainerCommand(spec.command),
        ActiveDeadlineSeconds(spec.seconds),
    ]
    try:
        _ask(lambda: client.train(runtime=spec.runtime, trainer=trainer, options=options))
        say(f"submitted TrainJob {spec.name}: {spec.nodes} nodes")
    except _RefusedError as error:
        if error.status == _STATUS_CONFLICT:
            say(f"TrainJob {spec.name} is there already; following it")
            return
        do = {
            _STATUS_FORBIDDEN: "bind the Role affectflow-trainer to this pod's service account",
            _STATUS_MISSING: f"install Kubeflow Trainer, and apply manifests/ for the runtime {spec.runtime}",
        }.get(error.status, "mend what it names")
        raise SettingsError(
            what_got_wanted(f"TrainJob {spec.name}", got=str(error), wanted="acceptance", do=do)
        ) from None


def _follow(client: Any, name: str) -> str | None:
    """Show the job's states and its first node's words; return None when it has completed, else its error line."""
    state, shown, error_line = "", 0, ""
    while True:
        job = _ask(lambda: client.get_job(name))
        if job.status != state:
            state = job.status
            say(f"TrainJob {name}: {state}")
        started = any(step.name == "node-0" and step.status != "Pending" for step in job.steps)
        ended = state in ("Complete", "Failed")
        if started:
            shown, error_line = _show_words(client, name, shown, error_line, follow=not ended)
        if ended:
            return None if state == "Complete" else error_line
        time.sleep(POLL_SECONDS)


def _show_words(client: Any, name: str, shown: int, error_line: str, *, follow: bool) -> tuple[int, str]:
    """Show the lines after the first ``shown``; a stream that breaks off is taken up at the next look."""
    try:
        for number, line in enumerate(client.get_job_logs(name, follow=follow)):
            if number < shown:
                continue
            shown = number + 1
            if failed := _ERROR.match(line):
                error_line = failed["line"]
            else:
                say(f"  {line}")
    except Exception as error:  # the words are for people; the state decides
        warn(f"the words of TrainJob {name} broke off ({type(error).__name__})")
    return shown, error_line


def _delete(client: Any, name: str) -> None:
    with contextlib.suppress(AffectflowError, _RefusedError, AwayError):
        _ask(lambda: client.delete_job(name))
        say(f"deleted TrainJob {name}")


class _RefusedError(Exception):
    """Kubernetes refuses a request; ``status`` is the HTTP status, 0 where there is none."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _ask(request: Callable[[], Result]) -> Result:
    """Call the SDK, again where the API server is away for a moment."""

    def once() -> Result:
        try:
            return request()
        except Exception as error:
            status, reason = _status_of(error)
            if status == 0 or status == 429 or status >= 500:
                raise AwayError(f"{type(error).__name__}: {reason}"[:200]) from None
            raise _RefusedError(f"status {status}: {reason}"[:300], status) from None

    try:
        return with_patience(once, who="Kubernetes")
    except AwayError as error:
        raise TrainingError(
            what_got_wanted("Kubernetes", got=str(error), wanted="an answer", do="look whether its API is well")
        ) from None


def _status_of(error: BaseException) -> tuple[int, str]:
    """Return the HTTP status at the bottom of the SDK's exceptions (0 for none), and what was said."""
    from kubernetes.client import ApiException

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ApiException):
            return int(cause.status or 0), " ".join(str(cause.reason).split())
        cause = cause.__cause__
    return 0, " ".join(str(error).split())


@contextlib.contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let SIGTERM, with which a cluster ends a pod, unwind the stack, so that the job is deleted."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
