"""No file runs code, no path leaves its folder, no name becomes markup, no secret is printed or kept."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import open_page
from fuzz_targets import Target, targets
from local_servers import answering_server
from PIL import Image
from small_pipeline import SmallPipeline
from step_server import REPOSITORY, StepServer

from affectflow.artifacts import sha256_file
from affectflow.data.quarantine import FaceError, Reason
from affectflow.data.sources import FolderSource, S3Source
from affectflow.errors import AffectflowError
from affectflow.html import Page
from affectflow.masking import mask

pytestmark = pytest.mark.nightly

# Code that is planted


class Planted:
    """Unpickled without restriction, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def planted_files(mark: Path) -> dict[str, bytes]:
    """Return code in every form in which a file of weights, arrays or checkpoints can hold it."""
    code = Planted(mark)
    found = {f"pickle of protocol {protocol}": pickle.dumps({"w": code}, protocol) for protocol in (0, 2, 4, 5)}
    for name, options in (("zip", {}), ("old", {"_use_new_zipfile_serialization": False})):
        stream = io.BytesIO()
        torch.save({"version": 1, "model": code, "w": torch.zeros(1)}, stream, **options)
        found[f"torch's {name} form"] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, np.array([code], object), allow_pickle=True)
    found["npy"] = stream.getvalue()
    stream = io.BytesIO()
    np.savez(stream, w=np.array([code], object))
    found["npz"] = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(code))
        archive.writestr("archive/version", "3")
    found["a zip that torch takes for its own"] = stream.getvalue()
    return found


def test_the_planted_code_does_run_where_nothing_is_restricted(tmp_path: Path) -> None:
    pickle.loads(planted_files(tmp_path / "mark")["pickle of protocol 4"])  # noqa: S301
    assert (tmp_path / "mark").exists()


@pytest.fixture(scope="module")
def readers(pipeline: SmallPipeline) -> dict[str, Target]:
    return targets(pipeline)


def test_no_reader_runs_planted_code(readers: dict[str, Target], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name, target in readers.items():
        for number, content in enumerate(planted_files(mark).values()):
            folder = tmp_path / f"{name}-{number}".replace(" ", "-")
            folder.mkdir()
            try:
                target.read(content, folder)
            except AffectflowError as error:
                assert "\n" not in str(error)
            assert not mark.exists(), name


def test_a_model_of_mlflow_holds_no_pickle(pipeline: SmallPipeline, tmp_path: Path, monkeypatch: Any) -> None:
    """Nothing of what is logged is loaded by unpickling."""
    from mlflow import MlflowClient

    from affectflow.tracking import model_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    with model_run(name="m", row_key="k", tags={}) as run:
        run.log_model(pipeline.artifact("model"))
    found = [path for path in (tmp_path / "mlruns").rglob("*") if path.is_file()]
    assert MlflowClient().get_run(run.run_id).outputs.model_outputs
    assert any(path.name == "model.safetensors" for path in found)
    for path in found:
        assert path.suffix not in (".pkl", ".pickle", ".pt", ".pth", ".joblib"), path
        assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05", b"\x80\x02")), path


@pytest.mark.parametrize("kind", ["faces", "splits", "class_weights", "model"])
def test_code_planted_in_an_artifact_of_kfp_does_not_run(
    kind: str, steps: StepServer, pipeline: SmallPipeline, tmp_path: Path
) -> None:
    """Each of its files is replaced by code, and its header fits."""
    import shutil

    mark, copy = tmp_path / "mark", tmp_path / kind
    shutil.copytree(pipeline.artifact(kind), copy)
    header_name = {"faces": "dataset.json", "splits": "splits.json"}.get(kind, f"{kind}.json")
    header = json.loads((copy / header_name).read_text())
    for name in header["files"] or {header_name: None}:
        (copy / name).write_bytes(planted_files(mark)["torch's zip form"])
        if name != header_name:
            header["files"][name] = {"bytes": (copy / name).stat().st_size, "sha256": sha256_file(copy / name)}
    if header["files"]:
        (copy / header_name).write_text(json.dumps(header))
    step = "evaluate" if kind == "model" else "fine_tune"
    ended = steps.run(
        step, [*pipeline.flags(step, **{kind: copy}), "--output-dir", str(tmp_path / "out")], tmp_path / "log"
    )
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert not mark.exists()


def test_nothing_is_unpickled_without_restriction() -> None:
    """The words with which code is let in stand nowhere."""
    forbidden = re.compile(
        r"pickle\.loads?\(|weights_only=False|allow_pickle=True|joblib|cloudpickle|dill|yaml\.load\(|yaml\.unsafe|"
        r"\beval\(|\bexec\(|shell=True|python_model=|trust_remote_code"
    )
    for folder in ("src", "components", "pipelines"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                found = forbidden.search(line.partition("  #")[0])
                if found and "``" not in line and not line.lstrip().startswith(("#", '"""')):
                    assert found.group() in ("eval(",) and ".eval(" in line, f"{path}:{number}: {line}"


# Paths

OUTSIDE = [
    "../secret.jpg",
    "../../secret.jpg",
    "a/../../secret.jpg",
    "./../secret.jpg",
    "link_out.jpg",
    "folder_out/secret.jpg",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "a\0.jpg",
    "a.jpg\0",
    "..",
    ".",
    "",
    "..\\secret.jpg",
    "C:\\secret.jpg",
    "C:/secret.jpg",
    "\\\\host\\share\\secret.jpg",
    "\\\\?\\C:\\secret.jpg",
    "file:///etc/passwd",
    "~/secret.jpg",
    "$HOME/secret.jpg",
    "%2e%2e/secret.jpg",
    "loop.jpg",
    "pipe.jpg",
    "x" * 5000,
    "a/" * 3000 + "b",
    "\udcff.jpg",
    "CON",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "inside.jpg").write_bytes(b"inside")
    (root / "link_out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "link_in.jpg").symlink_to(root / "inside.jpg")
    (root / "folder_out").symlink_to(tmp_path)
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    os.mkfifo(root / "pipe.jpg")
    return root


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: ascii(path)[:30])
def test_no_listed_path_leaves_the_source(path: str, source: Path) -> None:
    with pytest.raises(FaceError) as error:
        FolderSource(source).read(("",), path)
    assert error.value.reason in (Reason.OUTSIDE_ROOT, Reason.MISSING, Reason.UNDECODABLE, Reason.BAD_ROW)


def test_paths_inside_the_source_are_read(source: Path) -> None:
    for path in ("inside.jpg", "a/../inside.jpg", "link_in.jpg", "./inside.jpg"):
        assert FolderSource(source).read(("",), path) == b"inside"


@pytest.mark.parametrize("path", ["../secret.jpg", "/secret.jpg", "a/../../secret.jpg", "..", "a\0b"])
def test_no_listed_path_leaves_the_prefix_of_a_bucket(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Asked:
        def read(self, name: str, *, limit: int | None = None) -> bytes:
            asked.append(name)
            return b"x"

    source = S3Source("s3://bucket/prefix")
    source._storage = Asked()  # type: ignore[assignment]
    with pytest.raises(FaceError):
        source.read(("",), path)
    assert asked == []


# Markup

ATTACKS = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "' onmouseover='window.hacked=1",
    "</title><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "&lt;script&gt;{{7*7}}${7*7}",
    "</style><script>window.hacked=1</script>",
    "<iframe src=http://example.com>",
)


class Elements(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}")
            if name in ("src", "href", "action", "data", "poster", "srcset", "background", "formaction"):
                self.addresses.append(value or "")


def check_page(text: str) -> None:
    page = Elements(text)
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form", "link"}, page.tags
    assert page.handlers == []
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses), page.addresses
    assert "default-src 'none'" in text
    assert not re.search(r"url\(\s*['\"]?(?!data:|#)|@import", text)


@pytest.fixture(scope="module")
def attacked_pages(
    tmp_path_factory: pytest.TempPathFactory, steps: StepServer, pipeline: SmallPipeline
) -> list[Path]:
    """Every page that the steps write, with markup in the names of files, columns, classes, rows and runs."""
    from affectflow.report.writing import write_comparison

    root = tmp_path_factory.mktemp("attack")
    source = root / "source"
    source.mkdir()
    chance = np.random.default_rng(0)
    rows = []
    for number in range(160):
        name = f"{ATTACKS[number % len(ATTACKS)].replace('/', '∕')} {number}.png"
        pixels = chance.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(source / name, "PNG")
        label = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")[number % 8]
        rows.append('"' + name.replace('"', '""') + f'",{label}')
    for attack in ATTACKS:
        quoted = attack.replace('"', '""')
        rows += [f'"{quoted}.jpg",happy', f'"{quoted} 1.png","{quoted}"']
    header = "path,label," + ",".join('"' + attack.replace('"', '""') + '"' for attack in ATTACKS)
    (source / "labels.csv").write_text("\n".join([header, *(row + "," * len(ATTACKS) for row in rows)]), "utf-8")
    out = {
        step: root / step
        for step in ("ingest_affectnet", "split_dataset", "compute_class_weights", "fine_tune", "evaluate")
    }
    changes: dict[str, dict[str, Any]] = {
        "ingest_affectnet": {"source": source, "layout": "csv", "max_quarantined": 0.5},
        "split_dataset": {"faces": out["ingest_affectnet"] / "faces"},
        "compute_class_weights": {"splits": out["split_dataset"] / "splits"},
        "fine_tune": {
            "faces": out["ingest_affectnet"] / "faces",
            "splits": out["split_dataset"] / "splits",
            "class_weights": out["compute_class_weights"] / "class_weights",
            "epochs": 1,
            "pretrained": ATTACKS[0],
        },
        "evaluate": {
            "faces": out["ingest_affectnet"] / "faces",
            "splits": out["split_dataset"] / "splits",
            "model": out["fine_tune"] / "model",
            "history": out["fine_tune"] / "history",
        },
    }
    for step, change in changes.items():
        flags = [*pipeline.flags(step, **change), "--output-dir", str(out[step])]
        steps.run_well(step, flags, root / "log")
    metrics_file = out["evaluate"] / "metrics" / "metrics.json"
    metrics = json.loads(metrics_file.read_text())
    metrics["model"] |= {"backbone": ATTACKS[1], "pretrained": ATTACKS[0], "loss": ATTACKS[3]}
    metrics["model"]["settings"] |= {ATTACKS[4]: ATTACKS[5]}
    metrics_file.write_text(json.dumps(metrics))
    from components.compare_runs.step import read_run

    (root / "comparison").mkdir()
    write_comparison(
        root / "comparison", [read_run(str(out["evaluate"]))], resamples=100, seed=0, champion=" ".join(ATTACKS)
    )
    page = Page(ATTACKS[3])
    page.heading(ATTACKS[0])
    page.table([ATTACKS[0], ATTACKS[1]], [[ATTACKS[2], ATTACKS[4]]], caption=ATTACKS[5])
    page.bars(dict.fromkeys(ATTACKS, 1), label=ATTACKS[1])
    page.thumbnails([(b"\x89PNG", ATTACKS[1])])
    page.images((b"\x89PNG", ATTACKS[2]))
    (root / "page.html").write_text(page.render(), "utf-8")
    return sorted(root.rglob("*.html"))


def test_no_name_becomes_markup(attacked_pages: list[Path]) -> None:
    assert len(attacked_pages) >= 6
    texts = [path.read_text("utf-8") for path in attacked_pages]
    for path, text in zip(attacked_pages, texts, strict=True):
        check_page(text)
        assert "<script" not in text, path
    assert sum("&lt;script&gt;" in text for text in texts) >= 3  # the names are there


def test_the_check_of_pages_finds_an_attack() -> None:
    for attack in ATTACKS[:2]:
        with pytest.raises(AssertionError):
            check_page(f"<p>{attack}</p> default-src 'none'")


@pytest.mark.slow
def test_chromium_runs_nothing_and_fetches_nothing(attacked_pages: list[Path]) -> None:
    for path in attacked_pages:
        with open_page(path) as opened:
            assert opened.page.evaluate("window.hacked") is None, path
            assert opened.page.evaluate("document.querySelectorAll('script, iframe, object, form').length") == 0, (
                path
            )
            assert opened.fetched_from_outside == [], path


# Credentials

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDSECRET0001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+0002",
    "AWS_SESSION_TOKEN": "planted-secret-0003",
    "MLFLOW_TRACKING_USERNAME": "engineer",
    "MLFLOW_TRACKING_PASSWORD": "planted-secret-0004",
    "MLFLOW_TRACKING_TOKEN": "planted-secret-0005",
    "KFP_TOKEN": "planted-secret-0006",
    "MLFLOW_TRACKING_URI": "http://someone:planted-secret-0007@127.0.0.1:9",
}
LEAK = re.compile(rb"planted.secret|PLANTEDSECRET", re.IGNORECASE)


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AFFECTFLOW_RETRY_SECONDS", "0.1")
    monkeypatch.setenv("AFFECTFLOW_VERBOSITY", "verbose")
    yield SECRETS


def test_masking_leaves_no_secret(secrets: dict[str, str]) -> None:
    text = " ".join(secrets.values()) + " https://k:planted-secret-0008@h/ ?X-Amz-Signature=planted-secret-0009&x "
    text += "Authorization: Bearer planted-secret-0010 s3://bucket/prefix"
    assert not LEAK.search(mask(text).encode())
    assert "s3://bucket/prefix" in mask(text)
    assert mask("nothing secret at http://host:80/path?x=1") == "nothing secret at http://host:80/path?x=1"


@pytest.mark.parametrize("step", ["ingest_affectnet", "fine_tune", "evaluate", "compare_runs"])
def test_no_step_prints_or_writes_a_secret(
    step: str, steps: StepServer, pipeline: SmallPipeline, secrets: dict[str, str], tmp_path: Path
) -> None:
    """With a server that is away, one that refuses, a bucket that is away, and a fault of ours."""
    with answering_server(401, "wrong password planted-secret-0011") as refusing:
        host = refusing.removeprefix("http://")
        for number, environment in enumerate(
            (
                {"MLFLOW_TRACKING_URI": secrets["MLFLOW_TRACKING_URI"]},
                {"MLFLOW_TRACKING_URI": f"http://someone:planted-secret-0007@{host}"},
                {"MLFLOW_TRACKING_URI": "", "AWS_ENDPOINT_URL": f"http://u:planted-secret-0012@{host}"},
            )
        ):
            place = (
                {"checkpoint_dir": "s3://bucket/x"}
                if number == 2 and step in ("ingest_affectnet", "fine_tune")
                else {}
            )
            flags = [*pipeline.flags(step, **place), "--output-dir", str(tmp_path / str(number))]
            wanted = {
                **secrets,
                "AFFECTFLOW_RETRY_SECONDS": "0.1",
                "AFFECTFLOW_VERBOSITY": "verbose",
                **environment,
            }
            ended = steps.run(step, flags, tmp_path / "log", environment=wanted)
            assert not LEAK.search(ended.output.replace("planted-secret-0011", "").encode()), ended.output
            for path in (tmp_path / str(number)).rglob("*"):
                assert not (path.is_file() and LEAK.search(path.read_bytes())), path


def test_a_fault_of_ours_masks_its_traceback(secrets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    from affectflow.steps import run_step

    def faulty() -> None:
        raise LookupError(f"cannot reach {secrets['MLFLOW_TRACKING_URI']} with {secrets['KFP_TOKEN']}")

    with pytest.raises(SystemExit) as end:
        run_step(faulty)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "LookupError" in said
    assert not LEAK.search(said.encode())


def test_no_secret_reaches_mlflow(
    pipeline: SmallPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectflow.errors import DataError
    from affectflow.tracked_run import run_url
    from affectflow.tracking import model_run

    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError), model_run(name="m", row_key="k", tags={}) as run:
        run.log_params({"source": "s3://u:planted-secret-0007@h/x", "token": SECRETS["KFP_TOKEN"]}, prefix="data")
        raise DataError(f"no answer from {SECRETS['MLFLOW_TRACKING_URI']}")
    assert not LEAK.search((tmp_path / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SECRETS["MLFLOW_TRACKING_URI"])
    assert run_url("1", "2") == "http://127.0.0.1:9/#/experiments/1/runs/2"


@pytest.mark.slow
def test_no_secret_reaches_a_compiled_pipeline(secrets: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.compile", "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.yaml"))
    for text in (done.stdout, done.stderr, *(path.read_bytes() for path in tmp_path.glob("*.yaml"))):
        assert not LEAK.search(text)


# Linters

#: What bandit finds, and why it stands: rule → reason.
ANSWERED = {
    "B101": "asserts hold for types alone, never for input",
    "B301": "the unpickler is restricted to arrays",
    "B310": "the address is the user's own server",
    "B311": "random pauses and drawn faces need no cryptography",
    "B403": "the module is imported to restrict it",
    "B404": "the demo and the local stack start our own commands",
    "B603": "commands are lists that we make",
    "B607": "programs are found where the user's PATH has them",
    "B108": "a place that is looked at, not written to by a name of ours",
    "B110": "a step goes on where a courtesy fails",
    "B112": "a check that fails is reported as such",
    "B614": "torch.load with weights_only=True alone",
    "B103": "folders that containers of another user write to",
    "B104": "an address inside a container",
    "B105": "names of settings, no passwords",
    "B106": "names of settings, no passwords",
    "B107": "names of settings, no passwords",
}


def test_bandit_finds_nothing_that_is_not_answered() -> None:
    pytest.importorskip("bandit", reason="bandit is absent: install the extra audit")
    command = [sys.executable, "-m", "bandit", "-q", "-r", "src", "components", "pipelines", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    found = json.loads(done.stdout)["results"]
    open_ones = [
        f"{one['filename']}:{one['line_number']} {one['test_id']} {one['issue_text']}"
        for one in found
        if one["test_id"] not in ANSWERED or one["issue_severity"] == "HIGH"
    ]
    assert open_ones == []
