"""The command ``python -m components.compare_runs``."""

from components.cli import main
from components.compare_runs.component import compare_runs

if __name__ == "__main__":
    main(compare_runs)
