"""data/preprocess.py against plain float64 arithmetic and wfdb's physical values."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import wfdb
from conftest import fake_ecg
from plain_resample import slow_resample

from data import preprocess as module
from data.leads import LEADS, lead_name
from data.preprocess import Quality, SignalConfig, preprocess, preprocess_with_quality, window_starts
from data.quality import inspect
from data.records import RecordError, find_records, parse_header, read_record

AT_500 = SignalConfig(sample_freq=500)


def header_of(names=LEADS, freq=500, n=None, scale="1000/mV", fmt="16"):
    return parse_header(
        [f"R {len(names)} {freq} {n or ''}"] + [f"R.dat {fmt} {scale} 16 0 0 0 0 {name}" for name in names]
    )


def fake_adc(seed=0, seconds=10):
    return fake_ecg(np.random.default_rng(seed), seconds)


# Millivolts
# -------------------------------------------------------------------------------------------------------------


def test_equals_wfdb_in_millivolts(sample):
    if not sample.is_dir():
        pytest.skip("no sample recordings")
    for record in find_records(sample)[::8]:
        adc, header = read_record(record)
        config = SignalConfig(sample_freq=header.sample_freq, clip=1e3)
        expected = wfdb.rdrecord(record.path).p_signal.T
        np.testing.assert_allclose(preprocess(adc, header, config), expected, rtol=2e-7, atol=1e-9)
        x = preprocess(adc, header, SignalConfig())
        assert x.shape == (12, math.ceil(adc.shape[1] * 100 / header.sample_freq))
        np.testing.assert_allclose(
            x, np.clip(slow_resample(np.clip(expected, -10, 10), header.sample_freq, 100), -10, 10), atol=3e-6
        )


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_any_dtype_and_layout_gives_the_same(dtype):
    adc = fake_adc()
    header = header_of(scale="876.5(-123)/mV", n=5000)
    x = preprocess(adc, header, AT_500)
    assert x.dtype == np.float32 and x.flags.c_contiguous
    np.testing.assert_allclose(x, (adc.astype(float) + 123) / 876.5, rtol=1e-6)
    for array in (adc.astype(dtype), np.asfortranarray(adc.astype(dtype))):
        before = array.copy()
        np.testing.assert_array_equal(preprocess(array, header, AT_500), x)
        np.testing.assert_array_equal(array, before)  # the caller's samples are left alone


@pytest.mark.parametrize(
    "scale, factor",
    [
        ("1000/mv", 1),
        ("1000000/V", 1),
        ("1/uV", 1),
        ("1/µV", 1),
        ("1/μV", 1),
        ("1e-3/NV", 1),
        ("0", 5),
        ("1000", 1),
        ("-1000/mV", -1),
    ],
)
def test_units(scale, factor):
    adc = fake_adc()
    np.testing.assert_allclose(preprocess(adc, header_of(scale=scale), AT_500), adc * factor / 1000, rtol=1e-6)


def test_amplitudes_are_cut():
    adc = fake_adc()
    adc[3, 100:140] = 32000
    x = preprocess(adc, header_of(), SignalConfig(clip=2.5))
    assert np.abs(x).max() == 2.5


# Leads
# ------------------------------------------------------------------------------------------------------------------


def test_leads_are_placed_by_name():
    adc = fake_adc()
    expected = preprocess(adc, header_of(), AT_500)
    order = np.random.default_rng(1).permutation(12)
    spelt = ("MLI", "ecg ii", "DIII", "AVR", "avl", "lead aVF", "v1", "V2", "Lead V3", "V4", "ECG Lead V5", "V6")
    np.testing.assert_array_equal(preprocess(adc[order], header_of([spelt[i] for i in order]), AT_500), expected)
    np.testing.assert_array_equal(preprocess(adc, header_of(), replace(AT_500, leads=("V2", "II"))), expected[[7, 1]])
    assert lead_name("RESP") is lead_name("") is lead_name("V7") is lead_name("IIII") is None


@pytest.mark.parametrize("stored", [(0, 1), (0, 2), (1, 2), (0, 3), (3, 4), (4, 5), (5, 1), (2, 5)])
def test_limb_leads_are_derived_from_any_two(stored):
    adc = (fake_adc() // 2 * 2).astype(np.int16)
    adc[2] = adc[1] - adc[0]
    adc = adc.astype(float)
    adc[3:6] = -(adc[0] + adc[1]) / 2, adc[0] - adc[1] / 2, adc[1] - adc[0] / 2
    names = [LEADS[i] for i in stored] + ["V4"]
    x, quality = preprocess_with_quality(adc[[*stored, 9]], header_of(names), AT_500)
    np.testing.assert_allclose(x[:6], adc[:6] / 1000, atol=2e-6)
    np.testing.assert_array_equal(x[[6, 7, 8, 10, 11]], 0)
    assert quality.missing == ["V1", "V2", "V3", "V5", "V6"]
    assert quality.derived == [name for i, name in enumerate(LEADS[:6]) if i not in stored]


def test_a_single_limb_lead_derives_nothing():
    x, quality = preprocess_with_quality(fake_adc()[[1, 7]], header_of(["MLII", "RESP"]), AT_500)
    assert np.flatnonzero(x.any(axis=1)).tolist() == [1] and len(quality.missing) == 11 and not quality.derived
    assert any("'RESP'" in text for text in quality.warnings)


@pytest.mark.parametrize(
    "adc, header, fault",
    [
        (np.zeros((12, 5000)), header_of(n=4999), "announces 12 x 4999"),
        (np.zeros((11, 5000)), header_of(), "11 leads"),
        (np.zeros(5000), header_of(), "1-dimensional"),
        (np.zeros((12, 9), complex), header_of(), "complex"),
        (np.zeros((12, 0)), header_of(), "empty"),
        (np.zeros((2, 9)), header_of(["II", "MLII"]), "lead II stands twice"),
        (np.zeros((2, 9)), header_of(["RESP", "ABP"]), "none of its leads"),
        (np.zeros((1, 9)), header_of(["I"], scale="1/mmHg"), "'mmHg'"),
        (np.zeros((1, 9)), header_of(["I"], freq=0.5), "0.5 Hz"),
        (np.zeros((1, 9)), header_of(["I"], freq=2e5), "200000 Hz"),
    ],
)
def test_unusable_recordings(adc, header, fault):
    with pytest.raises(RecordError) as error:
        preprocess(adc, header, SignalConfig())
    assert str(error.value).startswith("R: ") and fault in str(error.value)


# Bad samples and quality
# ------------------------------------------------------------------------------------------------


def test_bad_samples_are_interpolated():
    adc = np.tile(np.arange(100.0), (12, 1)) * 10 - 495
    adc[0, :3] = np.nan
    adc[1, 50:55] = np.inf, -np.inf, np.nan, 1e300, -32768
    adc[2, 98:] = -32768
    adc[3] = np.nan
    x, quality = preprocess_with_quality(adc, header_of(), AT_500)
    assert quality.n_nan == 3 + 5 + 2 + 100 and quality.flat == ["aVR"]
    ramp = np.arange(100) / 100 - 0.495
    np.testing.assert_allclose(x[0], np.maximum(ramp, 0.03 - 0.495), rtol=1e-5)
    np.testing.assert_allclose(x[1], ramp, rtol=1e-5)
    np.testing.assert_allclose(x[2], np.minimum(ramp, 0.97 - 0.495), rtol=1e-5)
    np.testing.assert_array_equal(x[3], 0)
    as_stored = np.where(np.abs(adc) < 2000, adc, -32768).astype(np.int16)
    np.testing.assert_array_equal(preprocess(as_stored, header_of(), AT_500), x)
    assert preprocess(as_stored, header_of(fmt="32"), AT_500).min() == -10  # there -32768 is a value like any other


def test_quality_of_a_good_recording():
    _, quality = preprocess_with_quality(fake_adc(), header_of(), SignalConfig())
    assert quality == Quality(n_values=12 * 5000)


def test_saturation_is_counted():
    adc = fake_adc()
    adc[6, 1000:1020] = adc[6, 3000:3005] = 32767  # 25 samples; the four below are too few in a row
    adc[6, 4000:4004] = 32767
    adc[7, :7] = -32767
    _, quality = preprocess_with_quality(adc, header_of(), SignalConfig())
    assert quality.n_saturated == 32


def test_saturation_is_counted_as_one_by_one():
    def plainly(x, bad):
        """Runs of at least five equal values at a lead's limits, counted sample by sample."""
        count = 0
        for lead, mask in zip(x, bad):
            for limit in {lead.min(), lead.max()} if lead.min() < lead.max() else ():
                run = 0
                for hit in [*((lead == limit) & ~mask), False]:
                    count += run if not hit and run >= 5 else 0
                    run = run + 1 if hit else 0
        return count

    rng = np.random.default_rng(0)
    for top in (1, 2, 3, 9):
        x = np.repeat(rng.integers(0, top + 1, (12, 300)), rng.integers(1, 5), axis=1).astype(np.float32)
        x[3] = 5
        bad = rng.random(x.shape) < 0.1
        for mask in (bad, np.zeros_like(bad)):
            quality = inspect([([str(i) for i in range(12)], x, mask if mask.any() else None, np.zeros(12))])
            assert quality.n_saturated == plainly(x, mask)


@pytest.mark.parametrize("scale, fault", [("1/mV", "too large"), ("1000000/mV", "too small"), ("1000/V", "too large")])
def test_unit_off_by_a_thousand_is_noticed(scale, fault):
    _, quality = preprocess_with_quality(fake_adc(), header_of(scale=scale), SignalConfig())
    assert fault in quality.warnings[0]


def test_swapped_and_flat_leads_are_noticed():
    adc = fake_adc()
    adc[10] = 17
    _, quality = preprocess_with_quality(adc[[1, 0, *range(2, 12)]], header_of(), SignalConfig())
    assert quality.flat == ["V5"] and [text.split(" does")[0] for text in quality.warnings] == [
        "flat: V5",
        "I + III = II",
    ]
    _, quality = preprocess_with_quality(adc[[0, 1, 2, 6, *range(4, 12)]], header_of(), SignalConfig())
    assert any(text.startswith("aVR + aVL + aVF") for text in quality.warnings)


def test_long_recordings_lead_by_lead_give_the_same(monkeypatch):
    adc, names = fake_adc()[[0, 1, 6, 11]], ["I", "II", "V1", "V6"]
    header = header_of(names)
    expected, at_once = preprocess_with_quality(adc, header, SignalConfig())
    monkeypatch.setattr(module, "_LONG", 100)
    x, by_lead = preprocess_with_quality(adc, header, SignalConfig())
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_array_equal(preprocess(adc, header, SignalConfig()), x)
    assert by_lead == at_once


# Windows and configuration
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n, length, overlap",
    [
        (1000, 1000, 0),
        (1001, 1000, 0),
        (2500, 1000, 0),
        (12000, 1000, 0),
        (5001, 1000, 500),
        (1999, 1000, 999),
        (3, 2, 1),
    ],
)
def test_windows_cover_a_recording(n, length, overlap):
    starts = window_starts(n, length, overlap)
    assert starts[0] == 0 and starts[-1] == n - length and len(starts) == math.ceil((n - overlap) / (length - overlap))
    assert (
        (np.diff(starts) <= length - overlap).all() and np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else n == length
    )


def test_a_short_recording_has_one_window():
    assert window_starts(7, 10) == [0]
    for overlap in (10, -1):
        with pytest.raises(ValueError, match="overlap"):
            window_starts(7, 10, overlap)


def test_config_goes_through_json():
    config = SignalConfig(sample_freq=250.0, leads=("II", "V1"), clip=5.0)
    assert SignalConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    good = SignalConfig().to_dict()
    assert good["unit"] == "mV"
    for bad in (
        good | {"unit": "uV"},
        good | {"more": 1},
        {k: v for k, v in good.items() if k != "clip"},
        good | {"clip": "10"},
        [],
        good | {"sample_freq": 0},
        good | {"sample_freq": True},
        good | {"clip": math.nan},
        good | {"leads": ["I", "I"]},
        good | {"leads": ["X"]},
        good | {"leads": "I"},
        good | {"leads": [[]]},
        good | {"sample_freq": 1e9},
        good | {"leads": []},
    ):
        with pytest.raises(ValueError):
            SignalConfig.from_dict(bad)


# What only looks like an ECG
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-2.0, 0.4, 10.24, 40.0])
def test_an_offset_is_subtracted_and_remarked_upon(offset):
    adc = fake_adc().astype(float)
    adc -= np.median(adc, axis=1, keepdims=True)
    expected, quality = preprocess_with_quality(adc, header_of(), SignalConfig())
    assert not quality.warnings
    far = adc.copy()
    far[[1, 7]] += 1000 * offset
    for n in (adc.shape[1], 2**20 + 1):  # beyond it leads are processed one at a time
        repeated = np.resize(far.T, (n, 12)).T
        x, quality = preprocess_with_quality(repeated, header_of(), SignalConfig())
        np.testing.assert_allclose(x[:, :900], expected[:, :900], atol=2e-3)
        assert quality.warnings == [f"not around zero, by {offset:.3g} mV at most, which was subtracted: II, V2"]
        np.testing.assert_array_equal(preprocess(repeated, header_of(), SignalConfig()), x)


def test_a_small_offset_stays():
    adc = fake_adc().astype(float)
    adc += 250 - np.median(adc, axis=1, keepdims=True)
    x, quality = preprocess_with_quality(adc, header_of(), AT_500)
    np.testing.assert_allclose(x, adc / 1000, rtol=1e-6)
    assert not any("subtracted" in text for text in quality.warnings)


@pytest.mark.parametrize(
    "adc", [np.zeros((12, 5000)), np.full((12, 5000), 77), np.ones((12, 1)), np.full((12, 9), np.nan)]
)
def test_a_recording_without_signal_is_refused(adc):
    for read in (preprocess, preprocess_with_quality):
        with pytest.raises(RecordError, match="R: no signal"):
            read(adc, header_of(), SignalConfig())
