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

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data.cache import CacheError
from data.dataset import TrainBatches, build_dataset, with_auxiliary
from data.labels import load_class_set
from data.preprocess import SignalConfig
from data.records import RecordError
from data.splits import read_metadata, train_valid_split
from engine.augment import DEFAULT_AUGMENT, augment
from engine.inference import predict
from engine.loop import EMA, NanLossError, Trainer, make_optimizer, make_schedule
from engine.options import (add_data_arguments, add_run_arguments, check_arguments, check_same_settings, open_recordings,
                            open_run, settings_of_run)
from engine.run_folder import RunError, make_config
from engine.validation import prediction_rows, score_validation
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
    sizes = add_size_arguments(group)
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, default=5e-3, help="peak learning rate (default: %(default)s)")
    group.add_argument("--weight_decay", type=float, default=0.01, help="default: %(default)s")
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    group.add_argument("--auxiliary", type=int, default=10, metavar="N", help="learn every further code with N training recordings beside the classes; 0: none (default: %(default)s)")
    group.add_argument("--hide_demographics", type=float, default=0.2, help="share of windows trained without age and sex (default: %(default)s)")
    for name, value in DEFAULT_AUGMENT.items():
        group.add_argument(f"--{name}", type=float, default=value, help="augmentation, see engine/augment.py (default: %(default)s)")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    for name in sizes - set(ENCODERS[args.encoder][1]) - set(HEAD):
        if getattr(args, name) is not None:
            parser.error(f"--{name} is no size of --encoder {args.encoder}")
    return args


def add_size_arguments(group):
    """One flag per size of the encoders and the head; unset flags take the encoder's own default. Returns the sizes' names."""
    sizes = {}
    for owner, defaults in [*((name, encoder[1]) for name, encoder in ENCODERS.items()), ("head", HEAD)]:
        for name, value in defaults.items():
            if name not in ("n_leads", "n_classes"):
                sizes.setdefault(name, {})[owner] = value
    for name, owners in sizes.items():
        value = next(iter(owners.values()))
        first, many = (value[0], "+") if isinstance(value, (list, tuple)) else (value, None)
        shown = ", ".join(f"{owner} {' '.join(map(str, v)) if many else v}" for owner, v in owners.items())
        group.add_argument(f"--{name}", type=type(first), nargs=many, default=None, help=f"default: {shown}")
    return set(sizes)


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
        shown = torch.rand((len(x), 1), generator=generator, device=device) >= args.hide_demographics
        logits = model(x, n_valid, batch.demographics.to(device) * shown).float()             # (B, C + A)
        loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none") * known        # (B, C + A)
        return loss.sum() / known.sum().clamp(min=1)
    return loss_fn


def keep_answers(trained, answers):
    """Copy a model's weights into `answers`, the same model without the auxiliary outputs: what is validated and saved."""
    state, n_classes = trained.state_dict(), answers.head.thresholds.numel()
    for name in ("head.linear.weight", "head.linear.bias", "head.thresholds"):
        state[name] = state[name][:n_classes]
    answers.load_state_dict(state)


def validate(model, data, rows, args, class_set, device):
    """Choose thresholds on validation, keep them in the model, and score; -> (dict of scores, y_score (R, C))."""
    n_classes = len(class_set)
    y_score = predict(model, args.seq_length, [data.cache.signal(i) for i in rows], data.demographics[rows], device)  # (R, C)
    thresholds, scores = score_validation(data.y_true[rows], data.targets[rows, :n_classes], data.known[rows, :n_classes], y_score, class_set)
    model.head.thresholds.copy_(torch.from_numpy(thresholds))
    return scores, y_score


def train(args):
    device = "cuda" if args.cuda else "cpu"
    run = open_run(args)
    if args.resume and (run / "final_model.pth").exists():
        print(f"{run.path} is finished: nothing to resume")
        (run / "checkpoint.pth").unlink(missing_ok=True)
        return run.path

    # Data: one memory map of preprocessed signals, labels, and a split by patient
    signal_config = SignalConfig(sample_freq=args.sample_freq)
    cache = open_recordings(args, signal_config)
    class_set = load_class_set(args.classes, cache.dx)
    data = build_dataset(cache, class_set, read_metadata(args.metadata, cache.names))
    train_rows, valid_rows = train_valid_split(data.targets, cache.sources, data.metadata, args.valid_split, args.seed,
                                               args.fold, args.n_folds, args.hold_out, args.valid_fold)
    data = with_auxiliary(data, class_set, train_rows, args.auxiliary)
    batches = TrainBatches(data, train_rows, args.seq_length, args.batch_size, args.seed)
    valid_names = [cache.names[i] for i in valid_rows]
    print(f"{len(train_rows)} recordings train, {len(valid_rows)} validate, {len(class_set)} classes and {len(data.auxiliary)} auxiliary codes; {run.path}")

    # Model, and what trains it
    torch.manual_seed(args.seed)
    config = model_config(args, len(class_set))
    model = build_model({**config, "n_classes": data.targets.shape[1]}).to(device)
    answers = build_model(config).to(device)
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(device)
    trainer = Trainer(model, optimizer, schedule, EMA(model, args.ema_decay), make_loss(args, device, generator), device, args.bf16)

    history, best = [], -math.inf
    if args.resume and (run / "checkpoint.pth").exists():
        state = run.load("checkpoint.pth")
        check_same_settings(run, state["settings"], args)
        trainer.load_state(state["trainer"])
        history, best = state["history"], state["best"]
        print(f"Resumed after epoch {len(history)}")
    else:
        facts = {"n_train": len(train_rows), "n_valid": len(valid_rows), "n_skipped": len(cache.skipped),
                 "sources": sorted(set(cache.sources)), "frequency": data.targets[train_rows, :len(class_set)].mean(0).tolist()}
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
        keep_answers(trainer.ema.model, answers)
        scores, y_score = validate(answers, data, valid_rows, args, class_set, device)
        if not scores["auroc"] <= best or epoch == 1:        # NaN (no class has positives) counts as better
            best = scores["auroc"]
            run.save("model.pth", {"members": [answers.state_dict()]})
            run.write_rows("valid_predictions.csv", prediction_rows(valid_names, [cache.dx[i] for i in valid_rows], class_set, y_score))
        history.append({"epoch": epoch, "lr": schedule.get_last_lr()[0], "train_loss": train_loss, **scores, "seconds": round(seconds, 2),
                        "records_per_second": round(len(batches) * batches.batch_size / seconds, 1)})
        run.write_rows("history.csv", history)
        if epoch == args.epochs:
            run.save("final_model.pth", {"members": [answers.state_dict()]})
        run.save("checkpoint.pth", {"trainer": trainer.state(), "history": history, "best": best, "settings": settings_of_run(args)})
        print(f"epoch {epoch:3d}  train {train_loss:.4f}  valid {scores['valid_loss']:.4f}  AUROC {scores['auroc']:.4f}  "
              f"challenge {scores['challenge_metric']:.4f}  {seconds:.1f} s", flush=True)

    (run / "checkpoint.pth").unlink(missing_ok=True)
    return run.path


if __name__ == "__main__":
    try:
        train(parse_args())
    except (RunError, RecordError, CacheError, ValueError) as error:
        sys.exit(f"train.py: {error}")
