"""Fine-tune and evaluate facial-expression models on imbalanced face data."""

__version__ = "0.1.0"
