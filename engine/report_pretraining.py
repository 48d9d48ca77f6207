"""Sections of a report on a pre-training run: how well it foresees samples, and three examples."""

from functools import partial

import numpy as np
import torch

from data.inputs import read_input
from data.page import Facts, Picture, Section, Table
from data.preprocess import SignalConfig, to_millivolts
from data.records import RecordError
from engine import report_hidden
from engine import report_plots as plots
from engine.handover import Pretrained, read_pretrained
from engine.plots import LEADS, N_COLUMNS, SECONDS, on_page, plot_ecg
from engine.report_training import find_drawn, read_history
from engine.run_folder import RunError, RunFolder
from engine.trained_run import load_strictly
from models import build_encoder
from models.hidden_samples import HiddenSamplesModel
from models.next_sample import NextSampleModel

N_EXAMPLES = 3


def pretraining_sections(run: RunFolder, folders: list[str]) -> list[Section]:
    """Everything about a pre-trained encoder; recordings to be drawn are looked for in `folders`."""
    pretrained = read_pretrained(run.path)
    config = run.read_config()
    rows = read_history(run)
    ahead = "k_steps_ahead" in config["head"]
    describe = settings_section if ahead else report_hidden.settings_section
    sections = [describe(config, pretrained)]
    if rows:
        label = "By epoch, on the validation recordings; the baselines do not learn."
        picture = Picture(plots.learning_curves(rows), label, "wide")
        sections.append(Section("pretraining-curves", "Pre-training curves", [], [picture]))
        best = best_row(rows)
        sections.append(
            distance_section(config, best) if ahead else report_hidden.skill_section(best, partial(number, best))
        )
    sections.append(examples_section(run, config, pretrained, folders))
    return sections


def settings_section(config: dict, pretrained: Pretrained) -> Section:
    """What was pre-trained, in words."""
    data, training = config["data"], config["training"]
    n_weights = sum(value.numel() for value in pretrained.state.values())
    freq = pretrained.signal.sample_freq
    n_leads = len(pretrained.signal.leads)
    ahead = ", ".join(f"{k / freq:g}" for k in config["head"]["k_steps_ahead"])
    facts = [
        ("Encoder", f"{config['encoder']['encoder']} with {n_weights:,} weights, which never sees the future"),
        ("Learns", f"to predict {n_leads} leads {ahead} seconds ahead of what it has seen, without labels"),
        ("Reads", f"windows of {training['seq_length'] / freq:g} s at {freq:g} Hz"),
        ("Data", f"{data['n_train']:,} recordings trained, {data['n_valid']:,} validated"),
        ("Training", ", ".join(f"{k} {training[k]}" for k in ("epochs", "batch_size", "lr", "seed") if k in training)),
        ("Commit", config["git_commit"] or "unknown"),
    ]
    return Section("pretrained", "What was pre-trained", [], [Facts(facts)])


def number(row: dict, column: str) -> float:
    """A number of a row of pretrain_history.csv. Raises RunError."""
    try:
        return float(row[column])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"pretrain_history.csv lacks a number: {error}") from error


def best_row(rows: list[dict]) -> dict:
    """The epoch of least validation loss, or the last where nothing validated. Raises RunError."""
    losses = [number(row, "valid_loss") for row in rows]
    return rows[-1] if np.isnan(losses).all() else rows[int(np.nanargmin(losses))]


def distance_section(config: dict, best: dict) -> Section:
    """Loss and skill by distance in the best epoch, a row of pretrain_history.csv, against both baselines."""
    steps, freq = config["head"]["k_steps_ahead"], config["signal"]["sample_freq"]
    names = ("valid_loss", "persistence_loss", "linear_loss", "skill_persistence", "skill_linear")
    values = {name: [number(best, f"{name}_{k}") for k in steps] for name in names}
    seconds = [k / freq for k in steps]
    titles = {"valid_loss": "model", "persistence_loss": "nothing changes", "linear_loss": "linear predictor"}
    skills = {"skill_persistence": "against nothing changes", "skill_linear": "against the linear predictor"}
    picture = plots.by_distance(
        seconds,
        {title: values[name] for name, title in titles.items()},
        {title: values[name] for name, title in skills.items()},
    )
    table = [[f"{s:g} s", *(f"{values[name][i]:.3f}" for name in names)] for i, s in enumerate(seconds)]
    table.append(["all", *(f"{float(best[name]):.3f}" for name in names)])
    columns = ["ahead", *titles.values(), *(f"skill {title}" for title in skills.values())]
    text = (
        f"Best epoch: {best['epoch']}. Loss is in units of each lead's spread. Skill is the share of a baseline's loss "
        "that the model saves: 1 is perfect, 0 no better."
    )
    parts = [Picture(picture, "On the validation recordings.", "wide"), Table(columns, table)]
    return Section("distance", "Loss and skill by distance", [text], parts)


def load_model(run: RunFolder, config: dict) -> NextSampleModel | HiddenSamplesModel:
    """The pre-trained encoder with its head. Raises RunError."""
    content = run.load("model.pth")
    try:
        encoder = build_encoder(config["encoder"])
        head = config["head"]
        if "k_steps_ahead" in head:
            model = NextSampleModel(encoder, head["k_steps_ahead"], head["scale"])
        else:
            model = HiddenSamplesModel(encoder, head["scale"], head["n_summary"])
        for part in ("encoder", "head"):
            load_strictly(getattr(model, part), content[part], run / "model.pth")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / 'model.pth'} does not fit pretrain_config.json: {str(error)[:500]}") from error
    return model.eval()


def foreseen(model: NextSampleModel, signal: np.ndarray, seen: int, seq_length: int) -> np.ndarray:
    """What the model expects after the first `seen` samples: signal (n_leads, T) mV -> (n_leads, max steps + 1), from
    the last seen sample on; between the distances that it predicts a straight line.
    """
    stride = model.encoder.stride
    begin = max(0, seen - seq_length // stride * stride)
    begin += (seen - begin) % stride  # whole frames, the last of which ends at `seen`
    x = torch.from_numpy(np.ascontiguousarray(signal[None, :, begin:seen]))  # (1, n_leads, L)
    with torch.inference_mode():
        ahead = model.head(model.encoder(x)[..., -1:], x[..., None, -1:])[0, :, :, 0]  # (n_leads, K)
    steps = np.array([0, *model.k_steps_ahead.tolist()])
    values = np.concatenate([x[0, :, -1:].numpy(), ahead.float().numpy()], 1)  # (n_leads, K + 1)
    return np.stack([np.interp(np.arange(steps.max() + 1), steps, row) for row in values])


def foreseen_page(model: NextSampleModel, signal: np.ndarray, sample_freq: float, seq_length: int) -> np.ndarray:
    """What is expected from the middle of each column of the page on, NaN elsewhere: (n_leads, T) mV
    -> (n_leads, T).
    """
    overlay = np.full(signal.shape, np.nan, np.float32)
    column = SECONDS / N_COLUMNS
    for i in range(N_COLUMNS):
        seen = round((i + 0.5) * column * sample_freq)
        if model.encoder.stride <= seen < signal.shape[1]:
            ahead = foreseen(model, signal, seen, seq_length)
            end = min(seen - 1 + ahead.shape[1], signal.shape[1])
            overlay[:, seen - 1 : end] = ahead[:, : end - seen + 1]
    return overlay


def examples_section(run: RunFolder, config: dict, pretrained: Pretrained, folders: list[str]) -> Section:
    """Three validation recordings with what the model expected, drawn over what came or was hidden."""
    ahead = "k_steps_ahead" in config["head"]
    title = "The future, foreseen" if ahead else "The hidden, filled in"
    drawn = "what the model expects from the middle of each column on, having seen all before it"
    if not ahead:
        drawn = "what the model says of a stretch that is hidden from it in all leads at once, in each column"
    text = f"Blue and dashed: {drawn}. Validation recordings, evenly chosen from the list of them."
    ids = [name for name, _ in pretrained.recordings.get("valid", [])]
    names = [ids[i] for i in np.linspace(0, len(ids) - 1, N_EXAMPLES).round().astype(int)] if ids else []
    records = find_drawn(names, folders)
    if not records:
        return Section("foreseen", title, ["The recordings were not found: add --input_folder DIR."])
    model = load_model(run, config)
    predict = foreseen_page if ahead else report_hidden.filled_in
    signal_config = SignalConfig.from_dict(config["signal"])
    pictures = []
    for i, (name, record) in enumerate(records.items()):
        try:
            signal = to_millivolts(read_input(record, signal_config)[0])
        except RecordError as error:
            pictures.append(Picture("", str(error), heading=name))
            continue
        overlay = predict(model, signal, signal_config.sample_freq, config["training"]["seq_length"])
        figure = plot_ecg(
            on_page(signal, signal_config.leads, 0),
            signal_config.sample_freq,
            title=name,
            missing=[name for name in LEADS if name not in signal_config.leads],
            overlay=on_page(overlay, signal_config.leads, np.nan),
        )
        pictures.append(Picture(plots.svg(figure, f"foreseen{i}", themed=False), "25 mm/s, 10 mm/mV", "paper", name))
    return Section("foreseen", title, [text], pictures)
