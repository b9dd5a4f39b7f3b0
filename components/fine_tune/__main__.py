"""The command ``python -m components.fine_tune``."""

from components.cli import main
from components.fine_tune.component import fine_tune

if __name__ == "__main__":
    main(fine_tune)
