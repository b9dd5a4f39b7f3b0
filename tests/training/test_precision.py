"""``precision auto`` takes what was measured; a run that goes on keeps what it began with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopping import Killed, kill_at

from affectflow.training import precision
from affectflow.training.loop import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize(("speed", "wanted"), [(2.4, "bfloat16"), (1.1, "float32"), (0.2, "float32")])
def test_auto_is_bfloat16_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], speed: float, wanted: str
) -> None:
    monkeypatch.setattr(precision, "bfloat16_speed", lambda device: speed)
    assert precision.choose_precision("auto", CPU) == wanted
    said = capsys.readouterr().out
    assert f"{speed:.2f} times as fast as float32 on cpu, so {wanted}" in said


def test_a_given_precision_is_taken_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(precision, "bfloat16_speed")
    assert precision.choose_precision("float32", CPU) == "float32"


def test_the_measured_ratio_is_a_ratio() -> None:
    assert 0.01 < precision.bfloat16_speed(CPU) < 100


def test_a_run_that_goes_on_keeps_the_precision_it_began_with(
    make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    def run(chosen: str, **changes: Any) -> Trainer:
        return make_trainer(checkpoints=tmp_path, epochs=2, precision=chosen, **changes)

    with pytest.raises(Killed):
        run("bfloat16", on_step=kill_at(7)).fit()
    resumed = run("float32")
    resumed.fit()
    assert resumed.recipe.precision == "bfloat16"
