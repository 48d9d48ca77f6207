"""Full memory, of a GPU or of the machine: one line that says what to do."""

import numpy as np
import pytest
import torch

import driver
import export
import predict
import pretrain
import train

TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --batch_size 8 --epochs 4 --no-plots".split())


def arguments(folder, top):
    return ["--input_folder", str(folder), "--cache", str(top / "cache"), "--folder", str(top / "run")]


FULL = {
    "GPU": lambda: fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the manual.")),
    "GPU, older PyTorch": lambda: fail(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    "GPU, its libraries": lambda: fail(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x")),
    "PyTorch": lambda: torch.empty(2**55),
    "NumPy": lambda: np.empty(2**55),
    "Python": lambda: fail(MemoryError()),
}


def fail(error):
    raise error


@pytest.mark.parametrize("kind", FULL)
@pytest.mark.parametrize("script", [train, pretrain, driver, predict, export])
def test_full_memory_is_one_line_that_says_what_to_do(script, kind, sample, tmp_path, monkeypatch):
    begins_with = "open_recordings" if script in (train, pretrain) else "load_predictor"
    monkeypatch.setattr(script, begins_with, lambda *_: FULL[kind]())
    flags = {
        train: arguments(sample, tmp_path),
        pretrain: arguments(sample, tmp_path),
        driver: [str(sample), str(tmp_path / "out")],
        predict: ["R00"],
        export: ["mdl", str(tmp_path / "model.onnx")],
    }
    with pytest.raises(SystemExit) as caught:
        script.main(flags[script])
    text = caught.value.code  # a text is printed, and the status is 1
    memory = "the GPU's memory" if kind.startswith("GPU") else "the memory"
    assert text.startswith(f"{script.__name__}.py: {memory} is full: ") and "\n" not in text
    assert ("Tried to allocate 2.00 GiB" in text) == (kind in list(FULL)[:2])
    assert {train: "--batch_size", pretrain: "--batch_size", driver: "--skip_existing"}.get(script, "end other") in text


def test_memory_that_is_full_in_training_is_said_like_that(folder_of_records, tmp_path, monkeypatch):
    """Also when a checkpoint is loaded: it is not damaged."""
    train.main([*arguments(folder_of_records, tmp_path), *TINY, "--epochs", "1"])
    monkeypatch.setattr(train.Trainer, "load_state", lambda *_: FULL["GPU"]())
    with pytest.raises(SystemExit, match="the GPU's memory is full"):
        train.main(["--folder", str(tmp_path / "run"), "--resume", "--epochs", "2"])
    monkeypatch.setattr(train.Trainer, "_backward", lambda *_: FULL["GPU"]())
    with pytest.raises(SystemExit, match="the GPU's memory is full"):
        train.main([*arguments(folder_of_records, tmp_path), *TINY, "--overwrite"])


def test_other_errors_of_ours_keep_their_traceback(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "open_recordings", lambda *_: fail(RuntimeError("shapes cannot be multiplied")))
    with pytest.raises(RuntimeError, match="shapes"):
        train.main(arguments(sample, tmp_path))
