"""A python that starts at once: it has the large packages loaded and forks for every command.

``python -m X …`` costs seconds to import torch, timm, kfp and MLflow. Here a server imports them once; the script
that stands in for ``python`` hands it arguments, environment, folder and streams, and a fork runs the module as
``python`` would. The project's own code is imported by each fork anew.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

LOADED = (
    *("numpy", "pandas", "pyarrow.parquet", "pydantic", "matplotlib.figure", "PIL.Image", "psutil", "simplejpeg"),
    *("scipy.stats", "sklearn.metrics", "krippendorff", "torch", "torchvision.transforms.v2", "timm", "kfp.dsl"),
    *(
        "kfp.dsl.executor",
        "kfp.compiler",
        "mlflow.pyfunc",
        "mlflow.models",
        "safetensors.torch",
        "packaging.requirements",
    ),
)

_CLIENT = """#!{python} -ISS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(link, [len(request).to_bytes(8, "big")], [0, 1, 2])
    link.sendall(request)
    answer = link.recv(8)
os._exit(int(answer) if answer else 70)
"""


@contextlib.contextmanager
def preloaded_python(script: Path, environment: dict[str, str]) -> Iterator[None]:
    """Put a stand-in for ``python`` at ``script``, which works until the context ends."""
    address = str(script.with_name("python.socket"))
    script.unlink(missing_ok=True)
    script.write_text(_CLIENT.format(python=sys.executable, address=address), encoding="utf-8")
    script.chmod(0o755)
    command = [sys.executable, __file__, address]
    server = subprocess.Popen(command, env=environment, cwd=script.parent, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not Path(address).exists():
            assert server.poll() is None and time.monotonic() < end, "the server did not start"
            time.sleep(0.05)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def serve(address: str) -> None:
    for name in LOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        while True:
            link, _ = listening.accept()
            with link:
                link.send(str(_answer(link)).encode())


def _answer(link: socket.socket) -> int:
    size, streams, _, _ = socket.recv_fds(link, 8, 3)
    wanted, request = int.from_bytes(size, "big"), b""
    while len(request) < wanted:
        request += link.recv(1 << 16)
    child = os.fork()
    if child == 0:
        arguments, folder, environment = json.loads(request)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        _run(arguments)
    for stream in streams:
        os.close(stream)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _run(arguments: list[str]) -> None:
    """Do as python does with these arguments, and end this process."""
    code = 0
    try:
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [str(Path.cwd()), *paths]
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
