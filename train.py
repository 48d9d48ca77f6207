"""Train a 12-lead ECG classifier on a folder of WFDB records.

    python train.py                                        ./Training_WFDB, or the shipped sample if that is not there
    python train.py --input_folder DIR --folder RUN        your own recordings, into the folder RUN
    python train.py --metadata ptbxl_metadata.csv --valid_fold 8
    python train.py --fold 1 --n_folds 5                   one fold of a patient-wise, stratified cross-validation
    python train.py --hold_out georgia                     validate on a hospital that training never sees
    python train.py --folder RUN --resume                  go on after an interruption
    torchrun --nproc_per_node 8 train.py --cuda            eight GPUs share every batch, see the README

The predecessor's network and input:

    python train.py --encoder resnet --filters 64 128 196 256 320 --lengths 4096 1024 256 64 16 --kernel 17 \\
                    --sample_freq 400 --seq_length 4096

The run folder holds config.json, model.pth (best epoch), final_model.pth (last epoch), history.csv, train_ids.txt,
valid_ids.txt, valid_predictions.csv, skipped_records.csv and record_warnings.txt. `python driver.py RUN IN OUT` uses
it.
"""

import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F

from data.dataset import build_dataset, train_batches, with_auxiliary
from data.labels import load_class_set
from data.metadata import read_metadata
from data.overview import check_labels, overview
from data.preprocess import SignalConfig
from data.splits import Split, share_of
from engine.allocator import keep_freed_memory
from engine.augment import DEFAULT_AUGMENT, augment
from engine.decision import default_rule
from engine.distributed import process_group, synchronise_batch_norm
from engine.handover import FINE_TUNING_LR, read_pretrained
from engine.loop import EMA, Trainer, make_optimizer, make_schedule
from engine.options import (
    add_data_arguments,
    add_run_arguments,
    add_size_arguments,
    check_arguments,
    check_sizes,
    chosen_sizes,
    explicit_flags,
    open_recordings,
    open_run,
    resume,
    settings_of_run,
    write_skipped_and_warnings,
)
from engine.run_folder import RunError, make_config
from engine.script import clean_exit
from engine.validation import predict_together, prediction_rows, score_validation
from models import ENCODERS, HEAD, build_model


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    group = parser.add_argument_group("what the model reads and answers")
    group.add_argument(
        "--classes",
        default="cinc2020",
        help="cinc2020, cinc2021, cpsc2018, dset (all codes in the data) or a CSV (default: %(default)s)",
    )
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, default=250, help="samples in a window (default: %(default)s)")
    group.add_argument(
        "--decision",
        choices=("reward", "thresholds"),
        default=None,
        help="how probabilities become diagnoses: highest expected Challenge reward, or a threshold per class (default: reward for cinc2020 and cinc2021, else thresholds)",
    )
    group = parser.add_argument_group("model")
    group.add_argument("--encoder", choices=sorted(ENCODERS), default="xresnet", help="default: %(default)s")
    sizes = add_size_arguments(group, {**{name: defaults for name, (_, defaults) in ENCODERS.items()}, "head": HEAD})
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument(
        "--lr",
        type=float,
        default=0.01,
        help=f"peak learning rate (default: %(default)s; {FINE_TUNING_LR} with a pre-trained encoder)",
    )
    group.add_argument("--weight_decay", type=float, default=0.01, help="default: %(default)s")
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    group.add_argument(
        "--train_share",
        type=float,
        default=1.0,
        help="train on this share of the training recordings only, drawn by --seed, in as many steps (default: %(default)s)",
    )
    group.add_argument(
        "--auxiliary",
        type=int,
        default=10,
        metavar="N",
        help="learn every further code with N training recordings beside the classes; 0: none (default: %(default)s)",
    )
    group.add_argument(
        "--hide_covariates",
        type=float,
        default=0.2,
        help="share of windows trained without age, sex and rhythm (default: %(default)s)",
    )
    for name, value in DEFAULT_AUGMENT.items():
        group.add_argument(
            f"--{name}", type=float, default=value, help="augmentation, see engine/augment.py (default: %(default)s)"
        )
    group = parser.add_argument_group("fine-tuning, when --folder holds a pre-trained encoder")
    group.add_argument("--freeze_encoder", action="store_true", help="train the head alone")
    group.add_argument(
        "--encoder_lr_factor",
        type=float,
        default=0.3,
        help="learning rate of a pre-trained encoder relative to the head's (default: %(default)s)",
    )
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    given = explicit_flags(parser, args, argv)
    check_arguments(parser, args)
    pretrained = read_pretrained(args.folder)
    if pretrained is not None:
        pretrained.apply(args, given)
    elif args.freeze_encoder:
        parser.error("--freeze_encoder needs a --folder with a pre-trained encoder, see pretrain.py")
    check_sizes(parser, args, sizes, {**ENCODERS[args.encoder][1], **HEAD})
    return args


def make_loss(args, group, generator):
    """Binary cross-entropy over known labels of augmented windows. Every process augments the whole batch of B
    windows alike, and computes its part of it, b = B / number of processes.
    """

    def loss_fn(model, batch):
        x, y, mask, lengths, covariates = (
            group.all_gather(t.to(group.device, non_blocking=True))
            for t in (batch.x, batch.y, batch.mask, batch.lengths, batch.covariates)
        )
        x, y, mask, lengths = augment(x, y, mask, lengths, vars(args), generator)
        shown = torch.rand((len(x), 1), generator=generator, device=x.device) >= args.hide_covariates
        part = group.local_rows(len(x))
        logits = model(x[part], lengths[part], (covariates * shown)[part]).float()  # (b, C + A)
        loss = F.binary_cross_entropy_with_logits(logits, y[part], reduction="none") * mask[part]  # (b, C + A)
        return loss.sum() / mask.sum().clamp(min=1)

    return loss_fn


def copy_to_eval_model(trained, answers):
    """Copy a model's weights into `answers`, the same model without the auxiliary outputs: what is validated and
    saved.
    """
    state, n_classes = trained.state_dict(), answers.head.thresholds.numel()
    for name in ("head.linear.weight", "head.linear.bias", "head.thresholds"):
        state[name] = state[name][:n_classes]
    answers.load_state_dict(state)


def validate(model, data, rows, args, class_set, rule, group):
    """Choose thresholds on validation, keep them in the model, and score; -> (dict of scores, y_score (R, C))."""
    n_classes = len(class_set)
    y_score = predict_together(model, args.seq_length, data.cache, data.covariates, rows, group)  # (R, C)
    thresholds, scores = score_validation(
        data.y_true[rows], data.targets[rows, :n_classes], data.mask[rows, :n_classes], y_score, class_set, rule
    )
    model.head.thresholds.copy_(torch.from_numpy(thresholds))
    return scores, y_score


def train(args, run, group):
    """The whole experiment. args: the flags, run: the RunFolder to fill, group: the processes that train together."""
    device = group.device

    # Data: one memory map of preprocessed signals, labels, and a split by patient
    signal_config = SignalConfig(sample_freq=args.sample_freq)
    cache = open_recordings(args, signal_config, group, run)
    class_set = load_class_set(args.classes, cache.dx)
    rule = {"rule": "thresholds"} if args.decision == "thresholds" else default_rule(class_set)
    if args.decision == "reward" and rule["rule"] != "reward":
        raise RunError(f"--decision reward: the Challenge gives no rewards for the classes {args.classes}")
    data = build_dataset(cache, class_set, read_metadata(args.metadata, cache.names, cache.duplicates))
    train_rows, valid_rows = Split.from_flags(vars(args)).rows(data.targets, cache.sources, data.metadata, args.seed)
    pretrained = read_pretrained(run.path)
    if pretrained is not None:
        train_rows, valid_rows = pretrained.split(cache.names, data.metadata.patients, train_rows, valid_rows)
    check_labels(data, class_set, train_rows, valid_rows)
    n_windows = len(train_rows)  # an epoch has as many steps with few recordings as with all
    train_rows = share_of(train_rows, args.train_share, args.seed)
    data = with_auxiliary(data, class_set, train_rows, args.auxiliary)
    batches = train_batches(
        data,
        np.resize(train_rows, n_windows),
        args.seq_length,
        args.batch_size,
        args.seed,
        group.rank,
        group.world_size,
        device,
    )
    for line in [*data.metadata.warnings, *overview(data, class_set, train_rows, valid_rows)]:
        print(line)
    frequency = data.targets[train_rows].mean(0)  # (C + A,)
    valid_names, valid_dx = [cache.names[i] for i in valid_rows], [cache.dx[i] for i in valid_rows]
    print(
        f"{len(train_rows)} recordings train, {len(valid_rows)} validate, {len(class_set)} classes and {len(data.auxiliary)} auxiliary codes; {run.path}"
    )

    # Model, and what trains it
    torch.manual_seed(args.seed)
    config = {
        "encoder": args.encoder,
        **chosen_sizes(args, {**ENCODERS[args.encoder][1], **HEAD}),
        "n_leads": 12,
        "n_classes": len(class_set),
    }
    model = build_model({**config, "n_classes": len(frequency)}).to(device)
    model.head.start_at(torch.from_numpy(frequency))
    answers = build_model(config).to(device)
    if pretrained is not None:
        pretrained.load_into(model.encoder)
        model.encoder.requires_grad_(not args.freeze_encoder)
    model = synchronise_batch_norm(model, group)
    optimizer = make_optimizer(model, args.lr, args.weight_decay, 1.0 if pretrained is None else args.encoder_lr_factor)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(device)
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        EMA(model, args.ema_decay),
        make_loss(args, group, generator),
        device,
        args.bf16,
        group,
        args.compile,
    )

    train_ids = "".join(f"{cache.names[i]}\n" for i in train_rows)
    resumed = resume(run, trainer, args, train_ids)
    history, best = resumed or ([], -math.inf)
    if resumed is None:
        facts = {
            "n_train": len(train_rows),
            "n_valid": len(valid_rows),
            "n_skipped": len(cache.skipped),
            "sources": sorted(set(cache.sources)),
            "frequency": frequency[: len(class_set)].tolist(),
        }
        member = {"model": config, "seq_length": args.seq_length}
        run.write_text("train_ids.txt", train_ids)
        run.write_text("valid_ids.txt", "".join(f"{name}\n" for name in valid_names))
        write_skipped_and_warnings(run, cache)
        run.write_json(
            "config.json", make_config(signal_config, class_set, rule, [member], settings_of_run(args), facts)
        )

    for epoch, learned, speed in trainer.epochs(
        batches, len(history) + 1, args.epochs, args.seed, generator, cache.names
    ):
        copy_to_eval_model(trainer.ema.model, answers)
        scores, y_score = validate(answers, data, valid_rows, args, class_set, rule, group)
        if not scores["auroc"] <= best or epoch == 1:  # NaN (no class has positives) counts as better
            best = scores["auroc"]
            run.save("model.pth", {"members": [answers.state_dict()]})
            run.write_rows("valid_predictions.csv", prediction_rows(valid_names, valid_dx, class_set, y_score))
        history.append({**learned, **scores, **speed})
        run.write_rows("history.csv", history)
        if epoch < args.epochs:
            run.save(
                "checkpoint.pth",
                {"trainer": trainer.state(), "history": history, "best": best, "settings": settings_of_run(args)},
            )
        else:  # last of all: it marks the run as finished
            run.save("final_model.pth", {"members": [answers.state_dict()]})
        print(
            f"epoch {epoch:3d}  train {learned['train_loss']:.4f}  valid {scores['valid_loss']:.4f}  AUROC {scores['auroc']:.4f}  "
            f"challenge {scores['challenge_metric']:.4f}  {speed['seconds']:.1f} s",
            flush=True,
        )
    run.remove("checkpoint.pth")


def main(argv=None):
    with clean_exit("train.py", "go on with --resume"):
        args = parse_args(argv)
        keep_freed_memory()
        with process_group(args.cuda) as group, open_run(args, group) as run:
            train(args, run, group)


if __name__ == "__main__":
    main()
