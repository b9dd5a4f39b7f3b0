"""Every command of README and docs is run, and every file and change that a page shows is tried.

One small set of drawn faces serves all pages. A page's commands run in order in a copy of the project, where
``DIR`` is that set and ``FILE`` a file of weights; a command that an earlier page has run is not repeated
on the same project.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented import PAGES, ROOT, Fence, apply_diff, fences, page_before
from preloaded_python import preloaded_python

from affectflow.data.synthetic import write_synthetic_affectnet
from affectflow.labels import EXPRESSIONS

pytestmark = pytest.mark.slow

COPIED = (
    *("src", "components", "pipelines", "tests", "docs"),
    *("pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml", "README.md"),
)
BACKBONE = "mobilenetv1_100"
FACES_PER_CLASS = 24
RUN_LANGUAGES = {"bash"}
SHOWN_LANGUAGES = {"text", "json", "csv", "yaml", "python", "diff", "toml"}


class Reader:
    """Follows pages in a copy of the project."""

    def __init__(self, project: Path, places: dict[str, str]) -> None:
        self.project, self.places = project, places
        self.followed: list[str] = []
        self.done: set[str] = set()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        environment.pop("AFFECTFLOW_TEST_DATA", None)
        self.environment = environment | {
            "PYTHONPATH": f"{project / 'src'}{os.pathsep}{project}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "1",  # no page installs into the environment that runs the tests
        }

    def follow(self, page: str) -> None:
        if page in self.followed:
            return
        if earlier := page_before(page):
            self.follow(earlier)
        self.followed.append(page)
        before: dict[Path, str | None] = {}
        try:
            for fence in fences(page):
                if fence.reason and not fence.dry:
                    continue
                if fence.language in RUN_LANGUAGES:
                    for command in fence.commands():
                        self.run(f"{command} --dry-run" if fence.dry else command, again=bool(before))
                elif fence.title:
                    file = self.project / fence.title
                    before.setdefault(file, file.read_text(encoding="utf-8") if file.exists() else None)
                    self.write(fence)
        finally:  # each page begins with the project as it is
            for file, text in before.items():
                if text is None:
                    file.unlink()
                else:
                    file.write_text(text, encoding="utf-8")

    def run(self, command: str, *, again: bool = False) -> None:
        command = re.sub(r"\b(DIR|FILE)\b", lambda match: self.places[match[0]], command)
        if command in self.done and not again:
            return
        for name in (".with-torch", ".with-dev", ".with-stack"):
            (self.project / ".venv" / name).touch()  # the environment is made: make shall not make it again
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        self.done.add(command)

    def write(self, fence: Fence) -> None:
        file = self.project / fence.title
        if fence.language == "diff":
            file.write_text(apply_diff(file.read_text(encoding="utf-8"), fence.body), encoding="utf-8")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(fence.body, encoding="utf-8")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    project = folder / "affectflow"
    project.mkdir()
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, project / name)
    commands = project / ".venv" / "bin"
    commands.mkdir(parents=True)
    for command in (Path(sys.prefix) / "bin").iterdir():
        (commands / command.name).symlink_to(command)
    reader = Reader(project, {"DIR": str(write_faces(folder)), "FILE": str(write_weights(folder))})
    with preloaded_python(commands / "python", reader.environment):
        yield reader


def write_faces(folder: Path) -> Path:
    """Write a table with paths and labels, and as many pictures of every expression."""
    drawn, faces = folder / "drawn", folder / "faces"
    write_synthetic_affectnet(drawn, images=FACES_PER_CLASS * len(EXPRESSIONS), seed=0)
    pictures = sorted((drawn / "Manually_Annotated_Images").rglob("*.jpg"))[: FACES_PER_CLASS * len(EXPRESSIONS)]
    faces.mkdir()
    lines = ["path,label"]
    for number, picture in enumerate(pictures):
        shutil.copyfile(picture, faces / f"{number}.jpg")
        lines.append(f"{number}.jpg,{EXPRESSIONS[number % len(EXPRESSIONS)]}")
    (faces / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return faces


def write_weights(folder: Path) -> Path:
    from safetensors.torch import save_file

    from affectflow.models import create_backbone

    save_file(create_backbone(BACKBONE).state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.mark.parametrize("page", [page for page in PAGES if any(f.language == "bash" for f in fences(page))])
def test_what_the_page_says_works(page: str, reader: Reader) -> None:
    reader.follow(page)


@pytest.mark.parametrize("page", PAGES)
def test_commands_stand_in_fences_of_known_languages(page: str) -> None:
    for fence in fences(page):
        assert fence.language in RUN_LANGUAGES | SHOWN_LANGUAGES, fence.body
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"^ {4,}(\.venv/|make |python |\$ )", text, re.MULTILINE), "a command outside a fence"


def test_a_wrong_command_is_found(reader: Reader) -> None:
    with pytest.raises(AssertionError, match="unknown flag"):
        reader.run(".venv/bin/python -m components.split_dataset --faces x --no-such-flag 1 --output-dir out/x")


def test_a_diff_that_does_not_fit_is_found() -> None:
    assert apply_diff("a\nb\nc\n", " a\n-b\n+B\n") == "a\nB\nc\n"
    with pytest.raises(ValueError, match="stands 0 times"):
        apply_diff("a\nb\nc\n", " b\n-x\n")
