"""The command ``python -m components.plan_models``."""

from components.cli import main
from components.plan_models.component import plan_models

if __name__ == "__main__":
    main(plan_models)
