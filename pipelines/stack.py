"""PostgreSQL, an S3 server and an MLflow server on this machine: ``python -m pipelines.stack start``, check, stop.

What a cluster has, without one: MLflow keeps runs in PostgreSQL and files in S3 (SeaweedFS), and asks for a
password. All listens on loopback alone. Ports and generated credentials stand in ``<dir>/stack.env`` (mode 600),
which ``python -m pipelines.local --stack`` reads. What was stored stays there until the folder is deleted.
"""

import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from affectflow.command_line import OneLineParser
from affectflow.errors import USER_ERROR, AffectflowError, what_got_wanted
from affectflow.progress import say
from pipelines.background import free_ports, is_running, start_process, stop_process, write_private

DEFAULT_FOLDER = Path("runs/stack")
ENVIRONMENT_FILE = "stack.env"

_HOST = "127.0.0.1"
_BUCKET = "affectflow"
_USER = "affectflow"
_DATABASE = "mlflow"
#: SeaweedFS takes up to 17 s to start; MLflow makes its tables on a first start.
_START_SECONDS = 240.0

#: What the steps of a pipeline need of it; the rest is for the servers.
_STEP_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
)


class StackError(AffectflowError):
    """A server of the stack is missing, did not start, or does not answer."""


def main() -> int:
    """Do what is asked and return the exit code: 0, or 2 where the user can mend it."""
    parser = OneLineParser(prog="python -m pipelines.stack", description=__doc__)
    parser.add_argument("action", choices=("start", "check", "stop"))
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="what it stores [default: runs/stack]")
    flags = parser.parse_args()
    try:
        {"start": start, "check": check, "stop": stop}[flags.action](flags.dir)
    except AffectflowError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return USER_ERROR
    return 0


def start(folder: Path) -> None:
    """Start what does not run yet and wait until all of it answers; on a failure, stop what was started."""
    folder = folder.absolute()
    settings = _settings(folder)
    try:
        _start_postgres(folder, settings)
        _start_s3(folder, settings)
        _start_mlflow(folder, settings)
    except BaseException:
        stop(folder)
        raise
    say(f"MLflow at {settings['MLFLOW_TRACKING_URI']}, S3 at {settings['AWS_ENDPOINT_URL_S3']}")
    say(f"user and passwords: {folder / ENVIRONMENT_FILE}; in a shell: set -a; . {folder / ENVIRONMENT_FILE}")


def check(folder: Path) -> None:
    """Ask every server something that needs its credentials.

    Raises:
        StackError: of the first that does not answer.
    """
    settings = read_settings(folder)
    for name, ask in (("PostgreSQL", _ask_postgres), ("S3", _ask_s3), ("MLflow", _ask_mlflow)):
        try:
            ask(settings)
        except Exception as error:
            raise StackError(
                what_got_wanted(
                    name,
                    got=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}",
                    wanted="an answer",
                    do=f"look into the logs in {folder}, or run python -m pipelines.stack start",
                )
            ) from None
        say(f"{name} answers")


def stop(folder: Path) -> None:
    """Stop all of it, MLflow first; what is stored stays."""
    folder = folder.absolute()
    for name in ("mlflow", "s3"):
        stop_process(folder / f"{name}.pid")
    if (folder / "postgres" / "postmaster.pid").exists():
        _as_postgres(_postgres_program("pg_ctl"), "-D", str(folder / "postgres"), "-m", "fast", "-w", "stop")
    say("stopped")


def read_settings(folder: Path) -> dict[str, str]:
    """Return the stack's settings by variable.

    Raises:
        StackError: it was never started there.
    """
    file = folder / ENVIRONMENT_FILE
    if not file.is_file():
        raise StackError(
            what_got_wanted(str(file), got="no file", wanted="the stack's settings", do="run make stack first")
        )
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def step_environment(folder: Path) -> dict[str, str]:
    """Return what steps need to find and enter the servers."""
    settings = read_settings(folder)
    return {name: settings[name] for name in _STEP_VARIABLES}


def _settings(folder: Path) -> dict[str, str]:
    """Return the settings, which are made at the first start: free ports and random secrets."""
    file = folder / ENVIRONMENT_FILE
    if file.is_file():
        return read_settings(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ports = free_ports(10)
    settings = {
        "MLFLOW_TRACKING_URI": f"http://{_HOST}:{ports[0]}",
        "MLFLOW_TRACKING_USERNAME": _USER,
        "MLFLOW_TRACKING_PASSWORD": secrets.token_urlsafe(24),
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10).upper(),
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(30),
        "AWS_ENDPOINT_URL_S3": f"http://{_HOST}:{ports[1]}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PGHOST": _HOST,
        "PGPORT": str(ports[2]),
        "PGUSER": _USER,
        "PGPASSWORD": secrets.token_urlsafe(24),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        "SEAWEEDFS_PORTS": ",".join(map(str, ports[3:])),
    }
    text = "# Made by python -m pipelines.stack; keep it to yourself.\n"
    write_private(file, text + "".join(f"{name}={value}\n" for name, value in settings.items()))
    return settings


def _start_postgres(folder: Path, settings: dict[str, str]) -> None:
    data = folder / "postgres"
    if not (data / "PG_VERSION").exists():
        say("making the database")
        data.mkdir(exist_ok=True)
        password_file = data.parent / ".postgres-password"
        write_private(password_file, settings["PGPASSWORD"])
        if os.getuid() == 0:
            for path in (data, password_file):
                shutil.chown(path, "postgres", "postgres")
        try:
            _as_postgres(
                *(_postgres_program("initdb"), "-D", str(data), "-U", _USER, f"--pwfile={password_file}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
            )
        finally:
            password_file.unlink()
    elif not _postgres_is_away(data):
        return
    say("starting PostgreSQL")
    options = f"-c listen_addresses={_HOST} -c port={settings['PGPORT']} -c unix_socket_directories=''"
    log = str(data / "server.log")
    _as_postgres(_postgres_program("pg_ctl"), "-D", str(data), "-l", log, "-o", options, "-w", "start")
    _wait_for("PostgreSQL", lambda: _ask_postgres(settings, "postgres"), Path(log))
    import psycopg

    with psycopg.connect(dbname="postgres", autocommit=True, **_postgres_login(settings)) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,)).fetchone():
            connection.execute(f'CREATE DATABASE "{_DATABASE}"')


def _start_s3(folder: Path, settings: dict[str, str]) -> None:
    if is_running(folder / "s3.pid"):
        return
    say("starting SeaweedFS")
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not weed:
        raise StackError(what_got_wanted("weed", got="no such command", wanted="SeaweedFS", do="run make stack"))
    identity = {
        "name": _USER,
        "credentials": [
            {"accessKey": settings["AWS_ACCESS_KEY_ID"], "secretKey": settings["AWS_SECRET_ACCESS_KEY"]}
        ],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    write_private(config, json.dumps({"identities": [identity]}))
    (folder / "s3").mkdir(exist_ok=True)
    port = settings["AWS_ENDPOINT_URL_S3"].rpartition(":")[2]
    names = ("master.port", "volume.port", "filer.port", "s3.port.grpc")
    names += ("master.port.grpc", "volume.port.grpc", "filer.port.grpc")
    others = [
        f"-{name}={number}" for name, number in zip(names, settings["SEAWEEDFS_PORTS"].split(","), strict=True)
    ]
    command = [
        *(weed, "server", f"-dir={folder / 's3'}", f"-ip={_HOST}", f"-ip.bind={_HOST}", "-volume.max=10"),
        *(*others, "-master.telemetry=false"),
        *("-s3", f"-s3.port={port}", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]
    start_process(command, folder / "s3.pid", folder / "s3.log")
    _wait_for("SeaweedFS", lambda: _make_bucket(settings), folder / "s3.log", folder / "s3.pid")


def _start_mlflow(folder: Path, settings: dict[str, str]) -> None:
    if is_running(folder / "mlflow.pid"):
        return
    say("starting MLflow")
    port = settings["MLFLOW_TRACKING_URI"].rpartition(":")[2]
    # Passwords come through the environment (libpq reads PGPASSWORD), so that no process list shows one.
    auth = folder / "mlflow-auth.ini"
    auth.write_text(
        f"[mlflow]\ndefault_permission = READ\nadmin_username = {_USER}\n"
        f"database_uri = postgresql:///{_DATABASE}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n",
        encoding="utf-8",
    )
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", port, "--workers", "2"),
        *("--backend-store-uri", f"postgresql:///{_DATABASE}", "--app-name", "basic-auth"),
        *("--artifacts-destination", f"s3://{_BUCKET}/mlflow", "--allowed-hosts", f"{_HOST}:{port}"),
    ]
    environment = {
        **settings,
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_S3_ENDPOINT_URL": settings["AWS_ENDPOINT_URL_S3"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        environment.pop(name)
    start_process(command, folder / "mlflow.pid", folder / "mlflow.log", environment)
    _wait_for("MLflow", lambda: _ask_mlflow(settings), folder / "mlflow.log", folder / "mlflow.pid")


def _wait_for(name: str, ask: Callable[[], None], log: Path, pid_file: Path | None = None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            ask()
        except Exception as error:
            ended = pid_file is not None and not is_running(pid_file)
            if ended or time.monotonic() > deadline:
                waited = "its process has ended" if ended else f"no answer in {_START_SECONDS:.0f} s"
                got = f"{waited} ({type(error).__name__})"
                raise StackError(
                    what_got_wanted(name, got=got, wanted="a server that answers", do=f"read the end of {log}")
                ) from None
            time.sleep(0.3)
        else:
            return


def _ask_postgres(settings: dict[str, str], database: str = _DATABASE) -> None:
    import psycopg

    psycopg.connect(dbname=database, connect_timeout=5, **_postgres_login(settings)).close()


def _postgres_login(settings: dict[str, str]) -> dict[str, str]:
    return {
        name.removeprefix("PG").lower(): settings[name] for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD")
    }


def _ask_s3(settings: dict[str, str]) -> None:
    _s3(settings).list_objects_v2(Bucket=_BUCKET, MaxKeys=1)


def _make_bucket(settings: dict[str, str]) -> None:
    names = [bucket["Name"] for bucket in _s3(settings).list_buckets()["Buckets"]]
    if _BUCKET not in names:
        _s3(settings).create_bucket(Bucket=_BUCKET)


def _s3(settings: dict[str, str]):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_DEFAULT_REGION"],
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=30),
    )


def _ask_mlflow(settings: dict[str, str]) -> None:
    import urllib3

    login = f"{settings['MLFLOW_TRACKING_USERNAME']}:{settings['MLFLOW_TRACKING_PASSWORD']}"
    headers = urllib3.make_headers(basic_auth=login)
    answer = urllib3.PoolManager(retries=False, timeout=10.0).request(
        "GET",
        settings["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/experiments/search?max_results=1",
        headers=headers,
    )
    if answer.status != 200:
        raise StackError(f"status {answer.status}")


def _postgres_is_away(data: Path) -> bool:
    return bool(_as_postgres(_postgres_program("pg_ctl"), "-D", str(data), "status", check=False))


def _as_postgres(*command: str, check: bool = True) -> int:
    """Run a PostgreSQL program, which refuses to be root: as the user postgres where we are root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False, cwd="/")  # noqa: S603
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise StackError(
            what_got_wanted(Path(command[0]).name, got=said[-1], wanted="success", do="mend what it names")
        )
    return done.returncode


def _postgres_program(name: str) -> str:
    """Return the path of a PostgreSQL program; Debian keeps them out of PATH, in a folder a version."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(debian[-1]) if debian else shutil.which(name)
    if not found:
        raise StackError(
            what_got_wanted(
                name, got="no such command", wanted="PostgreSQL's server", do="apt-get install postgresql"
            )
        )
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        raise StackError(
            what_got_wanted("user postgres", got="none", wanted="one, as Debian's package makes it", do="add it")
        )
    return found


if __name__ == "__main__":
    raise SystemExit(main())
