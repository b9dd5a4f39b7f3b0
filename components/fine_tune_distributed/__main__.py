"""The command ``python -m components.fine_tune_distributed``."""

from components.cli import main
from components.fine_tune_distributed.component import fine_tune_distributed

if __name__ == "__main__":
    main(fine_tune_distributed)
