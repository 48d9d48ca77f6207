"""Sections of a report on a pre-training that predicts hidden samples: how well, and three examples."""

from collections.abc import Callable

import numpy as np
import torch

from data.leads import INDEPENDENT, limb_leads
from data.page import Facts, Section, Table
from engine.handover import Pretrained
from engine.hidden import KINDS
from engine.plots import N_COLUMNS, SECONDS
from models.hidden_samples import HiddenSamplesModel

SHOWN_STRETCH = 0.8  # s, hidden in the middle of each column of a page


def settings_section(config: dict, pretrained: Pretrained) -> Section:
    """What was pre-trained, in words."""
    data, training = config["data"], config["training"]
    n_weights = sum(value.numel() for value in pretrained.state.values())
    freq = pretrained.signal.sample_freq
    facts = [
        ("Encoder", f"{config['encoder']['encoder']} with {n_weights:,} weights, which looks both ways"),
        (
            "Learns",
            "to predict hidden leads and stretches of a window, and the mean beat, the variation of the beats and the "
            "rhythm of the recording around it, without labels",
        ),
        ("Reads", f"windows of {training['seq_length'] / freq:g} s at {freq:g} Hz"),
        ("Data", f"{data['n_train']:,} recordings trained, {data['n_valid']:,} validated"),
        ("Training", ", ".join(f"{k} {training[k]}" for k in ("epochs", "batch_size", "lr", "seed") if k in training)),
        ("Commit", config["git_commit"] or "unknown"),
    ]
    return Section("pretrained", "What was pre-trained", [], [Facts(facts)])


def skill_section(best: dict, number: Callable[[str], float]) -> Section:
    """Losses and skills of the best epoch against baselines.

    Args:
        best: its row of pretrain_history.csv.
        number: gives the number of one of its columns.
    """
    titles = {"": "all hidden samples"} | dict(zip(KINDS, ("hidden stretches, all leads", "hidden leads")))
    rows = []
    for kind, title in titles.items():
        end = f"_{kind}" if kind else ""
        names = (
            "hidden_loss",
            "hidden_interpolation_loss",
            "hidden_linear_loss",
            "skill_interpolation",
            "skill_linear",
        )
        rows.append([title, *(f"{number(f'{name}{end}'):.3f}" for name in names)])
    columns = ["", "model", "interpolation", "linear", "skill against interpolation", "skill against linear"]
    unseen = []
    for name, title in (("beat", "mean beat"), ("variation", "variation of the beats"), ("rhythm", "rhythm")):
        values = (number(f"{name}_loss"), number(f"{name}_constant_loss"), number(f"skill_{name}"))
        unseen.append([title, *(f"{value:.3f}" for value in values)])
    text = (
        f"Best epoch: {best['epoch']}. Skill is the share of a baseline's loss that the model saves: 1 is perfect, 0 "
        "no better. Interpolation draws a straight line across a stretch and takes a hidden lead for zero; linear is "
        "the best linear function of the leads that are visible at the moment."
    )
    parts = [Table(columns, rows), Table(["rest of the recording", "model", "best constant", "skill"], unseen)]
    return Section("skill", "Loss and skill", [text], parts)


def filled_in(model: HiddenSamplesModel, signal: np.ndarray, sample_freq: float, seq_length: int) -> np.ndarray:
    """What the model says of a stretch that is hidden in the middle of each column of the page, NaN elsewhere: (12, T)
    mV -> (12, T).
    """
    overlay = np.full(signal.shape, np.nan, np.float32)
    n = round(SHOWN_STRETCH * sample_freq)
    for i in range(N_COLUMNS):
        first = round((i + 0.5) * SECONDS / N_COLUMNS * sample_freq) - n // 2
        begin = min(max(0, first + n // 2 - seq_length // 2), max(0, signal.shape[1] - seq_length))
        window = signal[:, begin : begin + seq_length]
        if first + n > begin + window.shape[1]:
            break  # the recording has ended
        x = torch.from_numpy(np.array(window))[None]  # (1, 12, L)
        x[..., first - begin : first - begin + n] = 0
        with torch.inference_mode():
            leads = model(x)[0][0, :, first - begin : first - begin + n].numpy()  # (8, n)
        overlay[list(INDEPENDENT), first : first + n] = leads
        overlay[2:6, first : first + n] = limb_leads(leads[0], leads[1])
    return overlay
