"""Deterministic algorithms, for runs that must be equal to the bit."""

import os

import torch


def use_deterministic_algorithms() -> None:
    """Make PyTorch use deterministic algorithms alone, and fail where an operation has none; slower on a GPU.

    Call it before the first work on a GPU: cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)
