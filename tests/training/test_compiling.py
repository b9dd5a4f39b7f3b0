"""A compiled network trains as the other does, under the same names, and goes on from its checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from stopping import Killed, kill_at

from affectflow.training.loop import Trainer

pytestmark = pytest.mark.nightly

Make = Callable[..., Trainer]
SETTINGS = {"dropout": 0.0, "select": "last", "checkpoint_every": 2}


@pytest.mark.slow
def test_a_compiled_run_goes_on_uncompiled_and_the_reverse(make_trainer: Make, tmp_path: Path) -> None:
    eager = make_trainer(**SETTINGS)
    eager.fit()
    wanted = dict(eager.model.state_dict())
    for first in (True, False):
        folder = tmp_path / str(first)
        begun = make_trainer(checkpoints=folder, compiled=first, on_step=kill_at(3), **SETTINGS)
        with pytest.raises(Killed):
            begun.fit()
        ended = make_trainer(checkpoints=folder, compiled=not first, **SETTINGS)
        steps = []
        ended.on_epoch = lambda row, rate, steps=steps: steps.append(row["epoch"])
        ended.fit()
        assert steps == [1, 2]
        got = dict(ended.model.state_dict())
        assert got.keys() == wanted.keys()
        for name, weights in wanted.items():
            torch.testing.assert_close(got[name], weights, rtol=1e-3, atol=1e-4, msg=name)
