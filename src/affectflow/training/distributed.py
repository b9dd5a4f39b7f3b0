"""Data-parallel training: the processes of one step, and what they share.

A step starts its processes itself, on its own machine (:func:`in_processes`), or ``torchrun`` has started it once
for each process, on several machines perhaps; see :func:`launched`.

Each process holds the whole model and sees its share of every batch. Gradients are averaged by
DistributedDataParallel, and the losses sum over all processes, so the result is that of one process with the
whole batch. Rank 0 alone prints, tracks and writes.
"""

import contextlib
import datetime
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException, start_processes
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from affectflow.errors import USER_ERROR, AffectflowError, SettingsError, TrainingError, what_got_wanted
from affectflow.progress import warn
from affectflow.training.inference import Outputs, best_device

_LOOPBACK = "127.0.0.1"
#: The module of the loaders' workers.
_LOADING = "affectflow.training.loading"
#: How long a process waits for the others, e.g. while rank 0 writes a checkpoint.
_TIMEOUT = datetime.timedelta(minutes=30)
#: Seconds that the others have to end by themselves when one has failed.
_GRACE = 10.0


def count_processes(wanted: int, *, batch_size: int) -> int:
    """Return how many processes train.

    Args:
        wanted: their number; 0 for one a GPU, or one where there is none. Where torchrun has started them, that
            decides.
        batch_size: images a step, over all processes.

    Raises:
        SettingsError: there are fewer GPUs, or the batch cannot be divided evenly.
    """
    gpus = torch.cuda.device_count()
    count = int(os.environ["WORLD_SIZE"]) if launched() else wanted or max(1, gpus)
    if not launched() and 0 < gpus < count:
        raise SettingsError(
            what_got_wanted("--processes", got=str(count), wanted=f"{gpus} or fewer, one a GPU", do="lower it")
        )
    if batch_size % count:
        raise SettingsError(
            what_got_wanted(
                "--batch-size",
                got=str(batch_size),
                wanted=f"a multiple of the {count} processes that divide it",
                do="change --batch-size or --processes",
            )
        )
    return count


def in_processes(count: int, function: Callable[[], None]) -> None:
    """Call ``function`` in ``count`` new processes that find each other on loopback; with 1, call it here.

    The first that fails ends them all. They end with this process, too. SIGTERM is passed on to them.

    Args:
        count: of processes.
        function: can be pickled (a module's function, or a partial of one).

    Raises:
        AffectflowError: of any process, as it was raised there; a TrainingError where one was killed.
    """
    if launched():
        _work_in_this_process(function)
        return
    if count == 1:
        function()
        return
    store = TCPStore(_LOOPBACK, 0, is_master=True, wait_for_workers=False)
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    workers = start_processes(  # type: ignore[no-untyped-call]
        _work, (count, store.port, function, errors), nprocs=count, join=False, start_method="spawn"
    )
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in workers.processes])
    try:
        while not workers.join(grace_period=_GRACE):
            pass
    except ProcessException as error:
        if not errors.empty():
            raise errors.get() from None
        if isinstance(error, ProcessExitedException) and error.signal_name:
            raise TrainingError(
                what_got_wanted(
                    f"process {error.error_index} of {count}",
                    got=f"killed by {error.signal_name}",
                    wanted="one that ends by itself",
                    do="if memory ran out, lower --batch-size, --processes or --workers; then start again",
                )
            ) from None
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        for process in workers.processes:
            if process.is_alive():
                process.terminate()


def launched() -> bool:
    """Return whether ``torchrun`` has started this process as one of several, on one machine or more."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number among those that train together, from 0; 0 alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def training_device() -> torch.device:
    """Return this process's GPU where there are some, else the CPU."""
    device = best_device()
    number = int(os.environ["LOCAL_RANK"]) if launched() else rank()
    return torch.device(device.type, number) if device.type == "cuda" else device


def parallel(model: nn.Module, device: torch.device, *, compiled: bool = False) -> nn.Module:
    """Return what a training step calls: the model, compiled or not, in its data-parallel wrapper or not.

    The model itself stays as it is, and so do the names of its entries.

    BatchNorm layers that train take their statistics over all processes on GPUs. On the CPU they cannot: each
    process normalises with its own share of the batch, and rank 0's running statistics are everyone's.
    """
    if num_processes() == 1:
        return _compiled(model) if compiled else model
    shares_batchnorm = False
    model.train()
    if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
        if device.type == "cuda":
            share_batchnorm(model)
        else:
            shares_batchnorm = True
            warn(
                "on the CPU, BatchNorm layers that train see each process's share of a batch alone, so the result "
                "depends on --processes; pass --keep-batchnorm all, or --processes 1, for one that does not"
            )
    return DistributedDataParallel(
        _compiled(model) if compiled else model,
        device_ids=[device] if device.type == "cuda" else None,
        forward_sync_buffers=shares_batchnorm,
    )


def share_batchnorm(model: nn.Module) -> None:
    """Let a model's BatchNorm layers, in place, take the statistics of a training step over all processes.

    Layers that keep their statistics go on keeping them, and entries keep their names.
    """
    training = {name: module.training for name, module in model.named_modules()}
    convert_sync_batchnorm(model)
    for name, module in model.named_modules():
        module.training = training.get(name, True)


def _compiled(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model))


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process rank 0's buffers (BatchNorm's running statistics)."""
    if num_processes() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def join_outputs(share: Outputs, total: int) -> Outputs:
    """Return the outputs of all ``total`` faces in order, of which rank r ran r, r + world size, and so on."""
    if num_processes() == 1:
        return share
    columns = (share.logits, share.features, share.target)
    return Outputs(*(_interleave(column, total) for column in columns))


def gather(tensor: Tensor) -> list[Tensor]:
    """Return the tensors of all ranks, of one shape, on the CPU."""
    if num_processes() == 1:
        return [tensor]
    tensors = [torch.empty_like(tensor) for _ in range(num_processes())]
    dist.all_gather(tensors, tensor)
    return tensors


def _interleave(share: Tensor, total: int) -> Tensor:
    whole = torch.zeros(total, *share.shape[1:], dtype=share.dtype)
    whole[rank() :: num_processes()] = share
    dist.all_reduce(whole)
    return whole


def _work(
    rank: int,
    count: int,
    port: int,
    function: Callable[[], None],
    errors: "multiprocessing.SimpleQueue[AffectflowError]",
) -> None:
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = _prepare(rank, count)
    with _silent_unless_first(rank):
        store = TCPStore(_LOOPBACK, port, is_master=False)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_TIMEOUT)
        try:
            function()
        except AffectflowError as error:
            errors.put(error)
            raise SystemExit(USER_ERROR) from None
        dist.destroy_process_group()


def _work_in_this_process(function: Callable[[], None]) -> None:
    """Call ``function`` as the process that ``torchrun`` made this one; its environment names the others."""
    backend = _prepare(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
    with _silent_unless_first(int(os.environ["RANK"])):
        dist.init_process_group(backend, timeout=_TIMEOUT)
        function()
        dist.destroy_process_group()


def _prepare(number: int, count: int) -> str:
    """Make this process the one of this number of ``count`` on this machine; return the backend of its group."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # MLflow's run ends as failed
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    # The server of the loaders' workers imports what they need while the network is built.
    forkserver.set_forkserver_preload([_LOADING])
    forkserver.ensure_running()
    if torch.cuda.is_available():
        torch.cuda.set_device(number)
        return "cpu:gloo,cuda:nccl"
    return "gloo"


@contextlib.contextmanager
def _silent_unless_first(rank: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if rank > 0:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
