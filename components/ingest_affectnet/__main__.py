"""The command ``python -m components.ingest_affectnet``."""

from components.cli import main
from components.ingest_affectnet.component import ingest_affectnet

if __name__ == "__main__":
    main(ingest_affectnet)
