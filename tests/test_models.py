"""Networks and augmentation. Independent checks: shapes by hand, a window without padding, numpy, counted
parameters.
"""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from engine.augment import DEFAULT_AUGMENT, augment, change_band, mix
from models import DEFAULT_MODEL, build_encoder, build_model
from models.dropout import Dropout, random_bytes
from models.folding import fold_norms
from models.heads import ClassificationHead, pool_over_time

SMALL = [
    {"encoder": "xresnet", "stem": 8, "widths": [8, 16, 24], "depths": [1, 2, 1], "n_classes": 5, "n_covariates": 4},
    {
        "encoder": "xresnet",
        "stem": 8,
        "widths": [8, 16],
        "depths": [2, 1],
        "first_stride": 1,
        "n_classes": 5,
        "n_covariates": 4,
    },
    {
        "encoder": "resnet",
        "filters": [8, 16, 24],
        "lengths": [64, 16, 4],
        "kernel": 7,
        "n_classes": 5,
        "n_covariates": 4,
    },
]


def name_of(config):
    return f"{config['encoder']}-{len(config.get('widths', []))}"


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


def trained_looking(config):
    """A model whose norms are not the identity, as after training: fresh ones would hide errors."""
    torch.manual_seed(0)
    model = build_model(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize("config", SMALL, ids=name_of)
@pytest.mark.parametrize("n_samples", [96, 100, 101])
def test_shapes(config, n_samples):
    model = trained_looking(config)
    x = torch.randn(3, 12, n_samples)
    features = model.encoder(x)
    assert features.shape == (3, model.encoder.out_channels, -(-n_samples // model.encoder.stride))
    assert model(x).shape == (3, 5)
    assert model(x, torch.tensor([n_samples, 40, 1]), torch.randn(3, 4)).isfinite().all()


@pytest.mark.parametrize("more", [0, 1, 3])
@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_padding_changes_nothing(config, more):
    model = trained_looking(config)
    lengths = 4 * model.encoder.stride + more
    x, people = torch.randn(2, 12, lengths), torch.randn(2, 4)
    padded = nn.functional.pad(x, (0, 57))
    with torch.inference_mode():
        expected = model(x, None, people)
        told = model(padded, torch.full((2,), lengths), people)
        untold = model(padded, None, people)
    torch.testing.assert_close(told, expected, rtol=1e-4, atol=1e-5)
    assert (untold - expected).abs().max() > 1e-3  # the test would notice


@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_windows_of_a_batch_do_not_touch_each_other(config):
    model = trained_looking(config)
    x, lengths = torch.randn(3, 12, 96), torch.tensor([96, 50, 33])
    with torch.inference_mode():
        together = model(x, lengths)
        alone = torch.cat([model(x[i : i + 1], lengths[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_full_windows_need_no_mask(config):
    """The shortcut for windows without padding gives what the masked way gives, which one padded window in the batch
    calls for.
    """
    model, x = trained_looking(config), torch.randn(3, 12, 96)
    with torch.inference_mode():
        short = model(x, torch.full((3,), 96))
        masked = model(torch.cat([x, x[:1]]), torch.tensor([96, 96, 96, 40]))[:3]
    torch.testing.assert_close(short, masked, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_folded_norms_change_no_answer(config):
    model, x, lengths = trained_looking(config), torch.randn(3, 12, 96), torch.tensor([96, 50, 33])
    fast = fold_norms(copy.deepcopy(model))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x, lengths), model(x, lengths), rtol=1e-4, atol=1e-5)
    # Of the plain ResNet each block's second norm stays: it follows a sum, not a convolution.
    left = 0 if config["encoder"] == "xresnet" else len(config["filters"]) - 1
    assert n_norms(fast) == left < n_norms(model)


def n_norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


CAUSAL = [
    {"encoder": "causal_resnet", "stem": 8, "widths": [8, 16], "depths": [1, 2], "n_classes": 5, "n_covariates": 4},
    {"encoder": "transformer", "width": 16, "depth": 2, "n_heads": 2, "n_classes": 5, "n_covariates": 4},
]


@pytest.mark.slow
@pytest.mark.parametrize("config", SMALL[:1] + SMALL[2:] + CAUSAL, ids=lambda c: c["encoder"])
def test_compiled_networks_train_and_answer_alike(config):
    """Without code generation, which needs a C++ compiler: what cannot be traced fails here too."""
    torch._dynamo.reset()
    model, x = trained_looking(config), torch.randn(3, 12, 96)
    compiled = torch.compile(model, backend="aot_eager")
    for lengths in (torch.full((3,), 96), torch.tensor([96, 50, 33])):
        with torch.no_grad():
            torch.testing.assert_close(compiled.eval()(x, lengths), model.eval()(x, lengths), rtol=1e-4, atol=1e-5)
        compiled.train()(x, lengths).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.encoder.parameters())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_the_share_and_keeps_the_mean(share, layout):
    x = torch.rand(8, 37, 1, 501, generator=torch.Generator().manual_seed(1))
    x = x.contiguous(memory_format=layout).requires_grad_()
    dropout = Dropout(share)
    torch.manual_seed(1)
    y = dropout(x)
    dropped = y == 0
    sd = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(dropped.float().mean() - share) < 1 / 512 + 5 * sd  # a share is a multiple of 1/256
    for dim in range(4):  # no place is dropped more often than others
        if x.shape[dim] > 1:
            rest = [d for d in range(4) if d != dim]
            assert (dropped.float().mean(rest) - share).abs().max() < 1 / 512 + 6 * sd * x.shape[dim] ** 0.5
    scale = (y / x).detach()[~dropped]
    assert scale.max() - scale.min() < 1e-5 and scale.mean() == pytest.approx(1 / (1 - share), rel=0.02)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)
    assert y.is_contiguous(memory_format=layout) and not torch.equal(dropout(x), y)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), y) and torch.equal(dropout.eval()(x), x)


def test_random_bytes_are_uniform():
    torch.manual_seed(2)
    counts = torch.bincount(random_bytes(2**20 + 3).long(), minlength=256)
    assert counts.sum() == 2**20 + 3 and (counts - 4096).abs().max() < 5 * 64  # five standard deviations
    places = random_bytes(2**20).view(-1, 8).float().mean(0)  # also within the eight that are drawn at once
    assert (places - 127.5).abs().max() < 5 * 73.9 / 2**8.5


def test_dropout_refuses_what_is_not_a_share():
    for p in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match="dropout"):
            Dropout(p)


@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_every_parameter_learns(config):
    torch.manual_seed(0)
    model = build_model(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some start at zero, which blocks what is before them in the very first step
    loss = model(torch.randn(4, 12, 96), torch.tensor([96, 96, 50, 20]), torch.randn(4, 4)).square().sum()
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("config", SMALL, ids=name_of)
def test_state_dict_round_trip(config, tmp_path):
    model = trained_looking(config)
    model.head.thresholds.copy_(torch.rand(5))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    again = build_model(json.loads(json.dumps(config))).eval()
    again.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    x = torch.randn(2, 12, 100)
    with torch.inference_mode():
        assert torch.equal(model(x), again(x))
    assert torch.equal(model.head.thresholds, again.head.thresholds)


def test_encoder_handover_is_strict():
    """What pre-training hands to training: all of the encoder, nothing of the head."""
    model = build_model(SMALL[0])
    encoder = build_encoder(SMALL[0])
    encoder.load_state_dict(model.encoder.state_dict(), strict=True)


def test_predecessor():
    """7,057,851 parameters were counted with 27 classes and a head over 16 x 320 features; ours pools, so it has
    fewer.
    """
    encoder = build_encoder({"encoder": "resnet"})
    n_encoder = sum(p.numel() for p in encoder.parameters())
    assert (encoder.out_channels, encoder.stride) == (320, 256)
    assert abs(n_encoder + 27 * (16 * 320 + 1) - 7_057_851) < 150_000
    with torch.inference_mode():
        assert encoder.eval()(torch.zeros(1, 12, 4096)).shape == (1, 320, 16)


def test_default_model():
    model = build_model({})
    assert json.loads(json.dumps(DEFAULT_MODEL)) == DEFAULT_MODEL
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in build_model(DEFAULT_MODEL).parameters())
    assert model.head.thresholds.dtype == torch.float32 and (model.head.thresholds == 0.5).all()
    assert "head.thresholds" in model.state_dict()


@pytest.mark.parametrize(
    "config, fault",
    [
        ({"encoder": "lstm"}, "lstm"),
        ({"encoder": "xresnet", "filters": [1]}, "filters"),
        ({"widths": [8, 8], "depths": [1]}, "number"),
        ({"kernel": 4}, "odd"),
        ({"encoder": "resnet", "filters": [8, 8], "lengths": [64]}, "number"),
        ({"encoder": "resnet", "filters": [8, 8], "lengths": [64, 48]}, "divide"),
    ],
)
def test_bad_config_is_refused(config, fault):
    with pytest.raises(ValueError, match=fault):
        build_model(config)


def test_pooling_against_numpy():
    features = torch.randn(3, 4, 10) - 5  # below zero: padding must not win the maximum
    lengths = np.array([10, 6, 1])
    pooled = pool_over_time(features, torch.from_numpy(lengths)).numpy()
    for i, n in enumerate(lengths):
        part = features[i, :, :n].numpy()
        np.testing.assert_allclose(pooled[i], np.concatenate([part.mean(1), part.max(1)]), rtol=1e-5)


def test_head_without_covariates_is_the_same_as_unknown():
    head = ClassificationHead(4, 3, n_covariates=4).eval()
    features = torch.randn(2, 4, 7)
    assert torch.equal(head(features), head(features, None, torch.zeros(2, 4)))
    assert not torch.equal(head(features), head(features, None, torch.ones(2, 4)))


def batch_of(generator, lengths=(90, 90, 40)):
    x = torch.randn(3, 12, 90, generator=generator)
    lengths = torch.tensor(lengths)
    x[torch.arange(90).expand(3, 12, 90) >= lengths[:, None, None]] = 0
    y = (torch.rand(3, 5, generator=generator) < 0.4).float()
    return x, y, torch.ones(3, 5), lengths


def test_augmentation_is_deterministic_and_keeps_shapes(generator):
    batch = batch_of(generator)
    copies = [tensor.clone() for tensor in batch]
    first = augment(*batch, DEFAULT_AUGMENT, torch.Generator().manual_seed(1))
    again = augment(*batch, DEFAULT_AUGMENT, torch.Generator().manual_seed(1))
    other = augment(*batch, DEFAULT_AUGMENT, torch.Generator().manual_seed(2))
    for before, untouched, a, b in zip(batch, copies, first, again):
        assert torch.equal(before, untouched) and torch.equal(a, b)
        assert (a.shape, a.dtype) == (before.shape, before.dtype)
    assert not torch.equal(first[0], batch[0]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", DEFAULT_AUGMENT)
def test_each_augmentation_alone(name, generator):
    """Each one does something, stays finite, leaves padding silent, and off means untouched."""
    x, y, mask, lengths = batch_of(generator)
    off = dict.fromkeys(DEFAULT_AUGMENT, 0.0)
    for got, given in zip(augment(x, y, mask, lengths, off, generator), (x, y, mask, lengths)):
        assert torch.equal(got, given)
    changed, _, _, n_after = augment(x, y, mask, lengths, {**off, name: 0.9}, generator)
    assert changed.isfinite().all() and not torch.equal(changed, x)
    assert not changed[2, :, n_after[2] :].any()


def test_mixup_mixes_signal_and_targets_alike(generator):
    """With each window constant and equal to its first target, signal and target must stay equal."""
    y = torch.rand(16, 3, generator=generator)
    x = y[:, :1, None].expand(16, 12, 30)
    mask = torch.ones(16, 3)
    mask[0, 1] = 0
    mixed_x, mixed_y, mixed_mask, lengths = mix(x, y, mask, torch.arange(1, 17), 0.5, generator)
    torch.testing.assert_close(mixed_x, mixed_y[:, :1, None].expand(16, 12, 30))
    assert not torch.equal(mixed_y, y)
    assert 1 <= (mixed_mask == 0).sum() <= 2 and mixed_mask[0, 1] == 0  # window 0 and the one mixed with it
    assert (lengths >= torch.arange(1, 17)).all()


def test_band_keeps_the_middle_of_the_spectrum(generator):
    """At 100 Hz a 5 Hz sine passes almost untouched, a constant is removed, 48 Hz is damped in every window."""
    time = torch.arange(1000) / 100

    def gain(signal):
        out = change_band(signal.expand(8, 12, 1000), 1.0, generator)
        return out.square().mean((1, 2)).sqrt() / signal.square().mean().sqrt()

    assert (gain(torch.sin(2 * torch.pi * 5 * time)) > 0.9).all()
    assert (gain(torch.ones(1000)) < 1e-3).all()
    assert (gain(torch.sin(2 * torch.pi * 48 * time)) < 0.6).all()
