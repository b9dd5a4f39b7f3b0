"""What the pages tell a reader to do: commands to run, files to write, changes to make. Read from the text itself.

A fence of bash is run. One of python (or toml) with a title is a file to write, one of diff with a title changes
the file of that name. Text and other languages are shown only. ``<!-- not run: reason -->`` before a fence keeps
it from being run, ``<!-- checked with --dry-run: reason -->`` gives the command that flag, and at the top of a
page ``<!-- after: PAGE -->`` says which page its reader has followed before.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(
    r"(?:^<!-- (?:not run|(?P<dry>checked with --dry-run)): (?P<reason>[^\n]+) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_AFTER = re.compile(r"^<!-- after: (?P<page>\S+) -->", re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, the file it is titled with, its text, why it is not run, or only dryly."""

    language: str
    title: str
    body: str
    reason: str
    dry: bool

    def commands(self) -> list[str]:
        """Return a bash fence's commands: lines that end with a backslash go on, comments are left out."""
        joined = re.sub(r"\\\n\s*", "", self.body)
        lines = (re.sub(r"(^|\s{2,})#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def fences(page: str) -> list[Fence]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Fence(match["language"], match["title"] or "", match["body"], match["reason"] or "", bool(match["dry"]))
        for match in _FENCE.finditer(text)
    ]


def page_before(page: str) -> str:
    """Return the page that has been followed before this one, or ``""``."""
    match = _AFTER.search((ROOT / page).read_text(encoding="utf-8"))
    return match["page"] if match else ""


def apply_diff(text: str, diff: str) -> str:
    """Return a text with the changes of a diff without line numbers: hunks begin with ``@@``.

    Raises:
        ValueError: what a hunk changes does not stand in the text exactly once.
    """
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines()
        if not any(lines):
            continue
        before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
        if text.count(before) != 1:
            raise ValueError(f"stands {text.count(before)} times in the file:\n{before}")
        text = text.replace(before, after)
    return text
