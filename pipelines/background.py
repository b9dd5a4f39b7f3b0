"""Servers that run on after the command that started them, each known by a file with its process number."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

_STOP_SECONDS = 60.0


def start_process(
    command: list[str], pid_file: Path, log: Path, environment: dict[str, str] | None = None
) -> None:
    """Start a server in a session of its own.

    Args:
        command: its program and arguments.
        pid_file: by which it is found again.
        log: file to which its output is added; it works in that folder.
        environment: variables beside those of this process.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=log.parent,
            env={**os.environ, **(environment or {})},
        )
    pid_file.write_text(f"{process.pid} {_start_time(process.pid)}", encoding="utf-8")


def stop_process(pid_file: Path) -> None:
    """Stop a server and what it has started: kindly, and after a minute by force."""
    if is_running(pid_file):
        pid = int(pid_file.read_text(encoding="utf-8").split()[0])
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(pid, wanted)
            deadline = time.monotonic() + _STOP_SECONDS
            while is_running(pid_file) and time.monotonic() < deadline:
                time.sleep(0.1)
            if not is_running(pid_file):
                break
    pid_file.unlink(missing_ok=True)


def is_running(pid_file: Path) -> bool:
    """Return whether the very process runs that was started; another of the same number is not taken for it."""
    if not pid_file.is_file():
        return False
    pid, started = pid_file.read_text(encoding="utf-8").split()
    return _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    os.waitpid(pid, os.WNOHANG) if int(fields[1]) == os.getpid() else None
    return "" if fields[0] == "Z" else fields[19]


def free_ports(count: int) -> list[int]:
    """Return ports of loopback on which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_private(file: Path, text: str) -> None:
    """Write a file that its owner alone can read (mode 600)."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
