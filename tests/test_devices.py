"""What a step does on a device that is not the processor: PyTorch's "meta" device, whose tensors have no values,
refuses to compute with a tensor of the processor, and to be waited for.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from data.cache import open_cache
from data.covariates import LEAD_SUBSETS, N_COVARIATES
from data.dataset import Batch, ResidentBatches, unlabelled_dataset
from data.metadata import read_metadata
from data.preprocess import SignalConfig
from data.records import find_records
from engine.ahead import SamplesAhead
from engine.augment import DEFAULT_AUGMENT
from engine.distributed import ProcessGroup
from engine.hidden import HiddenSamples
from engine.loop import MovingAverage
from engine.recordings import TrainValid
from models import CAUSAL_ENCODERS, ENCODERS, build_encoder, build_model

THERE = "meta"
N_CLASSES = 24


def batch(n=4, length=300):
    """A batch on the device."""
    with torch.device(THERE):
        return Batch(
            x=torch.zeros(n, 12, length),
            y=torch.zeros(n, N_CLASSES),
            mask=torch.ones(n, N_CLASSES),
            lengths=torch.full((n,), length),
            covariates=torch.zeros(n, N_COVARIATES),
            subset_covariates=torch.zeros(n, len(LEAD_SUBSETS), N_COVARIATES),
            starts=np.zeros(n, int),
            index=np.arange(n),
        )


def assert_all_there(model, loss):
    loss.backward()
    MovingAverage(model, 0.9).update_parameters(model)
    assert loss.device.type == THERE
    assert all(p.grad.device.type == THERE for p in model.parameters())


def test_the_device_refuses_what_it_must():
    x = torch.zeros(2, device=THERE)
    with pytest.raises(RuntimeError, match="device"):
        x + torch.zeros(2)
    with pytest.raises(RuntimeError):
        x.sum().item()
    with pytest.raises(RuntimeError):
        bool((x > 0).all())


@pytest.mark.parametrize("lead_flags", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_training_step_stays_there(encoder, lead_flags):
    flags = SimpleNamespace(**DEFAULT_AUGMENT, lead_subsets=0.4 * lead_flags, hide_covariates=0.2)
    model = build_model({"encoder": encoder, "lead_flags": lead_flags, "n_classes": N_CLASSES}).to(THERE)
    loss_fn = train.make_loss(flags, ProcessGroup(device=THERE), None)
    assert_all_there(model, loss_fn(model, batch()))


@pytest.fixture
def recordings(sample, tmp_path):
    """A few recordings that train and validate, on the processor."""
    cache = open_cache(find_records(sample)[::20], SignalConfig(), tmp_path, quiet=True)
    rows = np.arange(len(cache))
    return TrainValid(cache, rows[:-2], rows[-2:], len(rows) - 2, rows[:0])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_step_of_pretraining_stays_there(encoder, recordings, monkeypatch):
    kind = SamplesAhead if encoder in CAUSAL_ENCODERS else HiddenSamples
    monkeypatch.setattr(kind, "_measure_baselines", lambda *_: None)  # they wait for their numbers
    flags = SimpleNamespace(seq_length=300, sample_freq=100.0, k_steps_ahead=[2, 50], gain=0.2)
    objective = kind(flags, build_encoder({"encoder": encoder}), recordings, ProcessGroup(device=THERE), None)
    assert_all_there(objective.model, objective.loss(objective.model, batch()))


def test_batches_are_cut_there(sample, tmp_path):
    cache = open_cache(find_records(sample)[::20], SignalConfig(), tmp_path, quiet=True)
    dataset = unlabelled_dataset(cache, read_metadata(None, cache.names))
    for cut in ResidentBatches(dataset, np.arange(len(dataset)), 250, 3, 1, device=THERE).epoch(1):
        tensors = [value for value in vars(cut).values() if isinstance(value, torch.Tensor)]
        assert len(tensors) == 6 and {tensor.device.type for tensor in tensors} == {THERE}
        assert cut.x.shape == (3, 12, 250)
