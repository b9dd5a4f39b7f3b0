"""The command ``python -m components.split_dataset``."""

from components.cli import main
from components.split_dataset.component import split_dataset

if __name__ == "__main__":
    main(split_dataset)
