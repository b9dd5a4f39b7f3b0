"""The command ``python -m components.compute_class_weights``."""

from components.cli import main
from components.compute_class_weights.component import compute_class_weights

if __name__ == "__main__":
    main(compute_class_weights)
