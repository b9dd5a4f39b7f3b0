"""Two processes with a part of the batch each are one process with the whole batch."""

import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from affectflow.losses import LOSSES, ClassStatistics, build_loss

SETTINGS = [
    {"center_update": update, "reduction": reduction, **more}
    for update in ("paper", "gradient")
    for reduction, more in (
        ("weighted_mean", {}),
        ("mean", {"feature_norm": "l2"}),
        ("sum", {"alpha_scale": "features"}),
    )
]


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 8)

    def forward(self, inputs):
        features = self.body(inputs).tanh()
        return self.head(features), features


def run_steps(name, settings, part):
    """Three steps on ``part`` of a fixed batch; return losses, centers and weights."""
    torch.manual_seed(0)
    inputs, target = torch.randn(11, 6, dtype=torch.float64), torch.randint(0, 8, (11,))
    weights = 0.02 + torch.rand(8, dtype=torch.float64)
    model: nn.Module = Toy().double()
    if distributed.is_initialized():
        model = DistributedDataParallel(model)
    loss = build_loss(name, class_weights=weights, num_classes=8, feature_dim=5, **settings).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(3):
        logits, features = model(inputs[part])
        value = loss(logits, features, target[part])
        optimizer.zero_grad()
        value.total.backward()
        optimizer.step()
        loss.step_centers(features, target[part])
        losses += [value.total.detach(), *value.parts.values()]
    state = [p.detach() for p in model.parameters()]
    centers = loss.auxiliary.centers if loss.auxiliary is not None else torch.zeros(0)
    return torch.stack(losses), centers, torch.cat([p.flatten() for p in state])


def class_means(part):
    torch.manual_seed(0)
    features, target = torch.randn(11, 4), torch.arange(11) % 3
    statistics = ClassStatistics(3, 4)
    statistics.update(features[part], target[part])
    if distributed.is_initialized():
        statistics.sum_processes()
    return statistics.means


def worker(rank, port, results):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    part = slice(0, 4) if rank == 0 else slice(4, 11)  # parts of different sizes
    found = {(name, i): run_steps(name, s, part) for name in LOSSES for i, s in enumerate(SETTINGS)}
    found["means"] = class_means(part)
    torch.save(found, f"{results}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    results = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(results)), nprocs=2)
    return [torch.load(results / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("i", range(len(SETTINGS)), ids=["-".join(map(str, s.values())) for s in SETTINGS])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_centers_and_weights_are_those_of_one_process(two_processes, name, i):
    alone = run_steps(name, SETTINGS[i], slice(None))
    for found in two_processes:
        for got, wanted in zip(found[name, i], alone, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_both_processes_hold_the_same_bits(two_processes):
    for key, first in two_processes[0].items():
        for a, b in zip(first, two_processes[1][key], strict=True):
            assert torch.equal(a, b), key


def test_class_statistics_add_up(two_processes):
    torch.testing.assert_close(two_processes[1]["means"], class_means(slice(None)))
