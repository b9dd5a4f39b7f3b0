"""Freed memory is kept for the next tensor, and can be given back."""

import platform
import resource
import subprocess
import sys

import pytest

# Takes and frees 64 MiB ten times, and prints how many pages the kernel made for that; then how far the process
# shrinks when it gives back what it kept.
PROGRAM = """
import resource, sys
from pathlib import Path
from affectflow.training.memory import give_back_freed_memory, keep_freed_memory
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
if sys.argv[1] == "keep":
    assert keep_freed_memory()
bytearray(64 << 20)
before = pages()
for _ in range(10):
    bytearray(64 << 20)
made, held = pages() - before, resident()
give_back_freed_memory()
print(made, held - resident())
"""
PAGES = (64 << 20) // resource.getpagesize()


def made_and_given_back(mode: str) -> tuple[int, int]:
    answer = subprocess.run([sys.executable, "-c", PROGRAM, mode], check=True, stdout=subprocess.PIPE, text=True)
    made, given_back = map(int, answer.stdout.split())
    return made, given_back


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told how to take memory")
def test_kept_memory_is_used_again_and_given_back_when_asked():
    usual, _ = made_and_given_back("leave")
    kept, given_back = made_and_given_back("keep")
    assert kept < 0.1 * usual
    assert given_back > 0.9 * PAGES


# Frees 256 MiB, then prints how many pages of its own the process holds, and how many of them a loading process
# that it forks shares.
FORKING = """
from pathlib import Path
from resource import getpagesize
import torch
from torch.utils.data import Dataset
from affectflow.training.loading import loader
from affectflow.training.memory import keep_freed_memory
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return kilobytes * 1024 // getpagesize()
class Pages(Dataset):
    def __len__(self):
        return 1
    def __getitems__(self, keys):
        return torch.tensor([resident()]), torch.tensor(keys)
assert keep_freed_memory()
bytearray(256 << 20)
held = resident()
(batch,) = loader(Pages(), workers=1, batch_size=1)
print(held, int(batch[0]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told how to take memory")
def test_a_loading_process_does_not_share_what_was_freed():
    answer = subprocess.run([sys.executable, "-c", FORKING], check=True, stdout=subprocess.PIPE, text=True)
    held, in_worker = map(int, answer.stdout.split())
    assert in_worker < held - 3 * PAGES
