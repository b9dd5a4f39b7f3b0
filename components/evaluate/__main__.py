"""The command ``python -m components.evaluate``."""

from components.cli import main
from components.evaluate.component import evaluate

if __name__ == "__main__":
    main(evaluate)
