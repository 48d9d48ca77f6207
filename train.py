"""Train a 12-lead ECG classifier on a folder of WFDB records.

    python train.py                                        ./Training_WFDB, or the shipped sample if that is not there
    python train.py --input_folder DIR --folder RUN        your own recordings, into the folder RUN
    python train.py --metadata ptbxl_metadata.csv --valid_fold 8
    python train.py --fold 1 --n_folds 5                   one fold of a patient-wise, stratified cross-validation
    python train.py --hold_out georgia                     validate on a hospital that training never sees
    python train.py --folder RUN --resume                  go on after an interruption

The predecessor's network and input:

    python train.py --encoder resnet --filters 64 128 196 256 320 --lengths 4096 1024 256 64 16 --kernel 17 \\
                    --sample_freq 400 --seq_length 4096

The run folder holds config.json, model.pth (best epoch), final_model.pth (last epoch), history.csv, train_ids.txt,
valid_ids.txt, valid_predictions.csv and skipped_records.csv. `python driver.py RUN IN OUT` uses it.
"""
import argparse
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from data.cache import CacheError
from data.dataset import TrainBatches, build_dataset
from data.labels import load_class_set
from data.preprocess import SignalConfig
from data.records import RecordError
from data.splits import read_metadata, train_valid_split
from engine.augment import DEFAULT_AUGMENT, augment
from engine.inference import predict
from engine.loop import EMA, NanLossError, Trainer, make_optimizer, make_schedule
from engine.metrics import choose_thresholds, compute_scores, load_weights
from engine.options import (add_data_arguments, add_run_arguments, check_arguments, check_same_settings, open_recordings,
                            open_run, settings_of_run)
from engine.run_folder import RunError, make_config
from models import ENCODERS, HEAD, build_model


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    group = parser.add_argument_group("what the model reads and answers")
    group.add_argument("--classes", default="cinc2020", help="cinc2020, cinc2021, cpsc2018, dset (all codes in the data) or a CSV (default: %(default)s)")
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, default=1000, help="samples in a window (default: %(default)s)")
    group = parser.add_argument_group("model")
    group.add_argument("--encoder", choices=sorted(ENCODERS), default="xresnet", help="default: %(default)s")
    for name, defaults in ENCODERS.items():
        add_size_arguments(group, name, defaults[1])
    add_size_arguments(group, "head", HEAD)
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, default=5e-3, help="peak learning rate (default: %(default)s)")
    group.add_argument("--weight_decay", type=float, default=0.01, help="default: %(default)s")
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    for name, value in DEFAULT_AUGMENT.items():
        group.add_argument(f"--{name}", type=float, default=value, help="augmentation, see engine/augment.py (default: %(default)s)")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    return args


def add_size_arguments(group, owner, defaults):
    """One flag per size of an encoder or head; unset flags take the encoder's own default."""
    for name, value in defaults.items():
        if name in ("n_leads", "n_classes") or f"--{name}" in group._option_string_actions:
            continue
        first, many = (value[0], "+") if isinstance(value, (list, tuple)) else (value, None)
        shown = " ".join(map(str, value)) if many else value
        group.add_argument(f"--{name}", type=type(first), nargs=many, default=None, help=f"{owner} (default: {shown})")


def model_config(args, n_classes):
    """The dictionary that build_model takes and config.json keeps."""
    sizes = {**ENCODERS[args.encoder][1], **HEAD}
    chosen = {name: getattr(args, name) for name in sizes if getattr(args, name, None) is not None}
    return {"encoder": args.encoder, **sizes, **chosen, "n_leads": 12, "n_classes": n_classes}


def make_loss(args, device, generator):
    """Binary cross-entropy over known labels of augmented windows."""
    def loss_fn(model, batch):
        x, y, known, n_valid = (t.to(device, non_blocking=True) for t in (batch.x, batch.y, batch.known, batch.n_valid))
        x, y, known, n_valid = augment(x, y, known, n_valid, vars(args), generator)
        logits = model(x, n_valid, batch.demographics.to(device)).float()                     # (B, C)
        loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * known        # (B, C)
        return loss.sum() / known.sum().clamp(min=1)
    return loss_fn


def official_weights(class_set):
    """(reward matrix, column of sinus rhythm) of the class set's Challenge, or (None, None) if it has none."""
    if class_set.name not in ("cinc2020", "cinc2021"):
        return None, None
    return load_weights(int(class_set.name[-4:]))[1], class_set.column("426783006")


def validate(model, data, rows, args, weights, normal, device):
    """Choose thresholds on validation, keep them in the model, and score; -> (dict of scores, y_score (R, C))."""
    y_score = predict(model, args.seq_length, [data.cache.signal(i) for i in rows], data.demographics[rows], device)  # (R, C)
    y_true = data.y_true[rows]
    thresholds = choose_thresholds(y_true, y_score, weights, normal)
    model.head.thresholds.copy_(torch.from_numpy(thresholds))
    scores = compute_scores(y_true, y_score > thresholds, y_score, weights, normal)
    p = np.clip(y_score.astype(np.float64), 1e-7, 1 - 1e-7)
    y, known = data.targets[rows], data.known[rows]
    loss = -(known * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum() / known.sum()
    names = ("auroc", "auprc", "accuracy", "f_measure", "f_beta_measure", "g_beta_measure", "challenge_metric")
    return {"valid_loss": float(loss), **{name: scores[name] for name in names}}, y_score


def save_best(run, model, class_set, names, y_score):
    run.save("model.pth", {"members": [model.state_dict()]})
    rows = [{"record": name, **dict(zip(class_set.codes, map(float, row)))} for name, row in zip(names, y_score)]
    run.write_rows("valid_predictions.csv", rows)


def train(args):
    device = "cuda" if args.cuda else "cpu"
    run = open_run(args)
    if args.resume and (run / "final_model.pth").exists():
        print(f"{run.path} is finished: nothing to resume")
        return run.path

    # Data: one memory map of preprocessed signals, labels, and a split by patient
    signal_config = SignalConfig(sample_freq=args.sample_freq)
    cache = open_recordings(args, signal_config)
    class_set = load_class_set(args.classes, cache.dx)
    data = build_dataset(cache, class_set, read_metadata(args.metadata, cache.names))
    train_rows, valid_rows = train_valid_split(data.targets, cache.sources, data.metadata, args.valid_split, args.seed,
                                               args.fold, args.n_folds, args.hold_out, args.valid_fold)
    batches = TrainBatches(data, train_rows, args.seq_length, args.batch_size, args.seed)
    valid_names = [cache.names[i] for i in valid_rows]
    print(f"{len(train_rows)} recordings train, {len(valid_rows)} validate, {len(class_set)} classes; {run.path}")

    # Model, and what trains it
    torch.manual_seed(args.seed)
    config = model_config(args, len(class_set))
    model = build_model(config).to(device)
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(device)
    trainer = Trainer(model, optimizer, schedule, EMA(model, args.ema_decay), make_loss(args, device, generator), device, args.bf16)
    weights, normal = official_weights(class_set)

    history, best = [], -math.inf
    if args.resume and (run / "checkpoint.pth").exists():
        state = run.load("checkpoint.pth")
        check_same_settings(run, state["settings"], args)
        trainer.load_state(state["trainer"])
        history, best = state["history"], state["best"]
        print(f"Resumed after epoch {len(history)}")
    else:
        facts = {"n_train": len(train_rows), "n_valid": len(valid_rows), "n_skipped": len(cache.skipped),
                 "sources": sorted(set(cache.sources))}
        member = {"model": config, "seq_length": args.seq_length}
        run.write_text("train_ids.txt", "".join(f"{cache.names[i]}\n" for i in train_rows))
        run.write_text("valid_ids.txt", "".join(f"{name}\n" for name in valid_names))
        run.write_rows("skipped_records.csv", [{"record": name, "reason": why} for name, why in cache.skipped], ["record", "reason"])
        run.write_json("config.json", make_config(signal_config, class_set, [member], settings_of_run(args), facts))

    for epoch in range(len(history) + 1, args.epochs + 1):
        torch.manual_seed(args.seed * 100_003 + epoch)       # dropout; a resumed epoch draws what it would have drawn
        generator.manual_seed(args.seed * 100_003 + epoch)   # augmentation
        start = time.perf_counter()
        with tqdm(total=len(batches) * batches.batch_size, desc=f"Epoch {epoch}/{args.epochs}", unit="rec", leave=False) as bar:
            try:
                train_loss = trainer.train_one_epoch(batches.epoch(epoch), bar)
            except NanLossError as error:
                names = ", ".join(cache.names[i] for i in error.rows)
                raise RunError(f"epoch {epoch}: {error}; model.pth keeps the best epoch so far. The batch held {names}") from error
        seconds = time.perf_counter() - start
        scores, y_score = validate(trainer.ema.model, data, valid_rows, args, weights, normal, device)
        if not scores["auroc"] <= best or epoch == 1:        # NaN (no class has positives) counts as better
            best = scores["auroc"]
            save_best(run, trainer.ema.model, class_set, valid_names, y_score)
        history.append({"epoch": epoch, "lr": schedule.get_last_lr()[0], "train_loss": train_loss, **scores, "seconds": round(seconds, 2),
                        "records_per_second": round(len(batches) * batches.batch_size / seconds, 1)})
        run.write_rows("history.csv", history)
        run.save("checkpoint.pth", {"trainer": trainer.state(), "history": history, "best": best, "settings": settings_of_run(args)})
        print(f"epoch {epoch:3d}  train {train_loss:.4f}  valid {scores['valid_loss']:.4f}  AUROC {scores['auroc']:.4f}  "
              f"challenge {scores['challenge_metric']:.4f}  {seconds:.1f} s", flush=True)

    run.save("final_model.pth", {"members": [trainer.ema.model.state_dict()]})
    (run / "checkpoint.pth").unlink(missing_ok=True)
    return run.path


if __name__ == "__main__":
    try:
        train(parse_args())
    except (RunError, RecordError, CacheError, ValueError) as error:
        sys.exit(f"train.py: {error}")
