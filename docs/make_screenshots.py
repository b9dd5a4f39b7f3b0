"""Take the README's screenshots in headless Chromium: the comparison report, and MLflow's page that compares runs.

    python docs/make_screenshots.py --work runs --report runs/artifacts/…/comparison/report.html

``--work`` is the folder of a local ``paper_tables`` run. Needs Chromium (Debian: ``apt-get install chromium``).
With ``--all-views`` the report is also taken light and dark, 360 and 1600 pixels wide, to be looked at.
"""

import argparse
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

#: What Chromium is started with: no window, nothing fetched by itself, a profile of its own.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
WAIT_SECONDS = 180.0
#: Models that MLflow's pages compare (more would not fit on a picture), and what their curves show.
COMPARED_RUNS = 5
CURVE = "val_uar"


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of a local run, with mlflow.db")
    parser.add_argument("--report", type=Path, required=True, help="a report.html of compare_runs")
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--all-views", action="store_true", help="take the report in every view as well")
    flags = parser.parse_args()
    if not flags.chromium:
        parser.error("no Chromium: got none on the PATH, wanted chromium; install it, or pass --chromium FILE")
    flags.output_dir.mkdir(parents=True, exist_ok=True)
    report = flags.report.absolute().as_uri()
    with browser(flags.chromium) as page, mlflow_server(flags.work / "mlflow.db") as address:
        page.open(report, width=1280, height=1000)
        page.save(flags.output_dir / "report.png")
        if flags.all_views:
            for scheme, width in itertools.product(("light", "dark"), (360, 1600)):
                page.open(report, width=width, height=900, scheme=scheme)
                page.save(flags.output_dir / f"report-{scheme}-{width}.png", whole=True)
        runs, experiment = newest_models(address)
        for name, view in mlflow_views(runs, experiment).items():
            page.open(f"{address}/#/{view}", width=1440, height=900, until="Run")
            page.evaluate("document.querySelector('button[aria-label=Close]')?.click()")  # the assistant's panel
            page.rest()
            page.save(flags.output_dir / f"{name}.png")


def mlflow_views(runs: list[str], experiment: str) -> dict[str, str]:
    """Return the pages that compare the runs: their settings and results, and their curves by epoch."""
    chosen = f"runs={json.dumps(runs)}&experiments={json.dumps([experiment])}".replace(" ", "")
    curves = (
        f'metric="{CURVE}"&plot_metric_keys=["{CURVE}"]&x_axis=step&y_axis_scale=linear&line_smoothness=1'
        '&show_point=true&plot_layout={"autosize":true,"xaxis":{},"yaxis":{}}'
        "&deselected_curves=[]&last_linear_y_axis_range=[]"
    )
    return {"mlflow_compare": f"compare-runs?{chosen}", "mlflow_curves": f"metric?{chosen}&{curves}"}


class BrowserPage:
    """One page of a browser, driven through the DevTools protocol."""

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, suppress_origin=True, timeout=WAIT_SECONDS)
        self._number = 0

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, url: str, *, width: int, height: int, scheme: str = "light", until: str = "") -> None:
        """Open a page in a window of that size and wait until it holds the text ``until`` and is at rest."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.rest(until)

    def rest(self, until: str = "") -> None:
        """Wait until the page holds the text ``until`` and no longer changes."""
        end, before = time.monotonic() + WAIT_SECONDS, ""
        while time.monotonic() < end:
            time.sleep(2)
            text = self.evaluate("document.readyState + document.body.innerText")
            if text.startswith("complete") and until in text and text == before:
                return
            before = text
        raise SystemExit(f"error: the page was not at rest within {WAIT_SECONDS:.0f} s, or had no {until!r}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def save(self, path: Path, *, whole: bool = False) -> None:
        """Write what is in the window, or the whole page, as PNG."""
        picture = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))
        print(f"{path}: {path.stat().st_size // 1024} kB")  # noqa: T201


@contextlib.contextmanager
def browser(program: str) -> Iterator[BrowserPage]:
    """Start Chromium with an empty profile and end it afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        try:
            port_file = Path(profile) / "DevToolsActivePort"
            wait_for(lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1, "Chromium")
            port = port_file.read_text().split()[0]
            pages = json.loads(get(f"http://127.0.0.1:{port}/json/list"))
            yield BrowserPage(next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page"))
        finally:
            process.terminate()
            process.wait(timeout=30)


@contextlib.contextmanager
def mlflow_server(database: Path) -> Iterator[str]:
    """Serve a local run's MLflow and end it afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database.absolute()}"]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        start_new_session=True,
    )
    try:
        wait_for(lambda: get(f"{address}/health") == b"OK", "MLflow's server")
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def newest_models(address: str) -> tuple[list[str], str]:
    """Return the newest models' run ids, and their experiment's."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`affectflow.kind` = 'model' AND attributes.status = 'FINISHED'")
    experiment = runs[0].info.experiment_id
    return [run.info.run_id for run in runs if run.info.experiment_id == experiment][:COMPARED_RUNS], experiment


def get(url: str) -> bytes:
    """Return what a local address answers."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content


def wait_for(ready: Any, what: str) -> None:
    """Wait until ``ready()`` holds."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.3)
    raise SystemExit(f"error: {what} did not start within {WAIT_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
