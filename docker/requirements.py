"""Print the dependencies that ``pyproject.toml`` names, those of an extra with ``requirements.py EXTRA``.

So that a layer of the images holds the dependencies alone, and does not change with the code.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
lines = project["optional-dependencies"][sys.argv[1]] if len(sys.argv) > 1 else project["dependencies"]
sys.stdout.write("\n".join(lines) + "\n")
