"""Train a 12-lead ECG classifier on a folder of WFDB records.

    python train.py                                        ./Training_WFDB, or the shipped sample if that is not there
    python train.py --input_folder DIR --folder RUN        your own recordings, into the folder RUN
    python train.py --metadata ptbxl_database.csv --valid_fold 8
    python train.py --input_folder ptb-xl-1.0.3 --classes ptbxl_all --valid_fold 9 --test_fold 10     its benchmark
    python train.py --fold 1 --n_folds 5                   one fold of a patient-wise, stratified cross-validation
    python train.py --hold_out georgia                     validate on a hospital that training never sees
    python train.py --teacher ENSEMBLE                     one network that learns the answers of several, too
    python train.py --init mdl --classes FILE.csv          fine-tune a trained run to your own classes: docs/runs.md
    python train.py --leads I II                           a model that reads these leads and no others
    python train.py --valid_split 0                        all recordings train, the last epoch is kept
    python train.py --folder RUN --resume                  go on after an interruption, with the flags of that run
    python train.py --folder RUN --resume --epochs 200     train a finished run further
    python train.py --config RUN/config.json --folder NEW  repeat a run; flags on the command line win over its own
    torchrun --nproc_per_node 8 train.py --cuda            eight GPUs share every batch: docs/clusters.md

The predecessor's network and input:

    python train.py --encoder resnet --filters 64 128 196 256 320 --lengths 4096 1024 256 64 16 --kernel 17 \\
                    --sample_freq 400 --seq_length 4096

The run folder holds config.json, model.pth (best epoch), final_model.pth (last epoch), checkpoint.pth (for --resume),
history.csv and its picture history.png, train_ids.txt, valid_ids.txt, valid_predictions.csv, skipped_records.csv and
record_warnings.txt. `python driver.py RUN IN OUT` uses it.
"""

import torch
import torch.nn.functional as F

from data.dataset import build_dataset, class_frequency, with_auxiliary, with_lead_subsets
from data.labels import load_class_set
from data.overview import overview
from engine.augment import DEFAULT_AUGMENT, augment, keep_lead_subset
from engine.distil import read_teacher
from engine.distributed import process_group, synchronise_batch_norm
from engine.forest import forest_of
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.options import TrainingParser
from engine.recordings import open_recordings, read_own_metadata, split_recordings
from engine.resume import open_run, start_or_resume
from engine.script import IN_TRAINING, clean_exit
from engine.start import DEFAULTS, decision_rule, read_start, windows_of
from engine.trained_run import make_config
from engine.validation import Validator, score_test
from models import build_model

# Columns of history.csv that are printed.
SHOWN = {"train_loss": "train", "valid_loss": "valid", "auroc": "AUROC", "challenge_metric": "challenge"}

AUGMENT_HELP = {
    "gain": "scale windows by up to exp(+- this), and each lead by a fifth of that",
    "lead_dropout": "share of silent leads, in every second window",
    "band": "share of windows passed through random high- and low-pass filters",
    "wander": "share of windows with baseline wander",
    "noise": "share of windows with white noise",
    "mixup": "shape of the mixing weights; 0: off",
}


def parse_args(argv=None):
    """The flags, checked, and what training starts from: the run of --init, the pre-trained encoder in --folder, or
    None.
    """
    parser = TrainingParser(__doc__, epochs=DEFAULTS["epochs"])
    group = parser.add_argument_group("what the model reads and answers")
    group.add_argument(
        "--classes",
        default="cinc2020",
        help="cinc2020, cinc2021, cpsc2018, ptbxl_all (or ptbxl_diagnostic, ptbxl_subdiagnostic, "
        "ptbxl_superdiagnostic, ptbxl_form, ptbxl_rhythm), dset (all codes in the data) or a CSV "
        "(default: %(default)s)",
    )
    parser.add_leads_argument(group)
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, default=250, help="samples in a window (default: %(default)s)")
    group.add_argument(
        "--decision",
        choices=("reward", "thresholds"),
        help="how probabilities become diagnoses: highest expected Challenge reward, or a threshold per class "
        "(default: reward for cinc2020 and cinc2021, else thresholds)",
    )
    parser.add_head_arguments()
    group = parser.add_argument_group("training")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, help=f"peak learning rate ({DEFAULTS['lr']})")
    group.add_argument(
        "--weight_decay", type=float, default=0.01, help="of matrices and convolutions (default: %(default)s)"
    )
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    group.add_argument(
        "--train_share",
        type=float,
        default=1.0,
        help="for learning curves: train on this share of the training recordings, drawn by --seed, in as many steps "
        "as with all (default: %(default)s)",
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
    group.add_argument(
        "--lead_subsets",
        type=float,
        default=0.0,
        help="for recordings with few leads: share of windows that keep the limb leads, these and V2, or lead I only, "
        "e.g. 0.4; the network is then told which leads are there (default: %(default)s)",
    )
    group.add_argument(
        "--forest",
        type=int,
        default=0,
        metavar="N",
        help="also grow N decision trees for each class on what is measured of recordings (widths, intervals, axes, "
        "heights of waves), whose answers are joined with the network's; 100 is what mdl/ has (default: %(default)s)",
    )
    group.add_argument(
        "--teacher",
        metavar="RUN",
        help="finished run or ensemble whose out-of-fold probabilities (valid_predictions.csv) are learned beside the "
        "labels; its decision rule is taken over unless --decision is given",
    )
    group.add_argument(
        "--teacher_share",
        type=float,
        default=0.3,
        help="weight of the teacher's probability in a target, the label having the rest (default: %(default)s)",
    )
    for name, value in DEFAULT_AUGMENT.items():
        group.add_argument(
            f"--{name}", type=float, default=value, help=f"augmentation: {AUGMENT_HELP[name]} (default: %(default)s)"
        )
    group = parser.add_argument_group("fine-tuning, with --init or when --folder holds a pre-trained encoder")
    group.add_argument(
        "--init",
        metavar="RUN",
        help="trained run to start from, e.g. --init mdl: its encoder, and its answers of the classes that it shares "
        "with --classes; other classes start afresh",
    )
    group.add_argument("--freeze_encoder", action="store_true", help="train the head alone")
    group.add_argument(
        "--encoder_lr_factor",
        type=float,
        help=f"learning rate of a pre-trained encoder relative to the head's ({DEFAULTS['encoder_lr_factor']})",
    )
    args = parser.parse(argv)
    start = read_start(args, parser.error)
    parser.check_sizes(args)
    return args, start


def make_loss(args, group, generator):
    """Binary cross-entropy over known labels of augmented windows. Every process augments the whole batch of B
    windows alike, and computes its own rows of it, b = B / number of processes.
    """

    def loss_fn(model, batch):
        parts = (batch.x, batch.y, batch.mask, batch.lengths, batch.covariates, batch.subset_covariates)
        parts = [group.all_gather(t.to(group.device, non_blocking=True)) for t in parts]
        x, y, mask, lengths, covariates, subset_covariates = parts
        x, y, mask, lengths = augment(x, y, mask, lengths, vars(args), generator)
        if args.lead_subsets:
            x, covariates = keep_lead_subset(x, covariates, subset_covariates, args.lead_subsets, generator)
        keep = torch.rand((len(x), 1), generator=generator, device=x.device) >= args.hide_covariates  # (B, 1)
        own = group.local_rows(len(x))
        logits = model(x[own], lengths[own], (covariates * keep)[own]).float()  # (b, C + A)
        loss = F.binary_cross_entropy_with_logits(logits, y[own], reduction="none") * mask[own]  # (b, C + A)
        return loss.sum() / mask.sum().clamp(min=1)

    return loss_fn


def copy_to_eval_model(trained, eval_model):
    """Copy weights into the same model without the auxiliary outputs: what is validated and saved."""
    eval_model.encoder.load_state_dict(trained.encoder.state_dict())
    n_classes = eval_model.head.thresholds.numel()
    eval_model.head.load_state_dict({name: value[:n_classes] for name, value in trained.head.state_dict().items()})


def train(args, start, run, group):
    """The whole experiment.

    Args:
        args: the Flags.
        start: the Pretrained encoder or the InitialRun to start from, or None.
        run: the RunFolder to fill.
        group: the ProcessGroup of the processes that train together.
    """
    # ---- data: one memory map of preprocessed signals, labels, and a split by patient
    signal_config = args.signal_config()
    cache = open_recordings(args, signal_config, run, group)
    class_set = load_class_set(args.classes, cache.dx)
    data = build_dataset(cache, class_set, read_own_metadata(args, cache))
    recordings = split_recordings(args, data, start, args.classes, args.train_share)
    data = with_auxiliary(data, class_set, recordings.train, args.auxiliary)
    print(*overview(data, class_set, recordings.train, recordings.valid, args.leads), sep="\n")
    print(f"{len(recordings.train)} recordings train, {len(recordings.valid)} validate; {run.path}")
    frequency = class_frequency(data, recordings.train)  # (C + A,)
    teacher = None if args.teacher is None else read_teacher(args.teacher, class_set)
    rule = decision_rule(args, class_set, start, teacher)
    if args.lead_subsets:
        data = with_lead_subsets(data, recordings.train, args.sample_freq)
    data, forest = forest_of(args, start, data, recordings, class_set)
    if teacher is not None:
        data = teacher.soften(data, recordings.train, args.teacher_share)
    batches = recordings.batches(data, args, group)

    # ---- model: what is trained has auxiliary outputs, what is validated and saved has not, but the forest
    torch.manual_seed(args.seed)
    config = args.model_config(len(class_set))
    model = build_model({**config, "n_classes": len(frequency)}).to(group.device)
    model.head.start_at(torch.from_numpy(frequency))
    if start is not None:
        start.load_into(model.encoder)
        model.encoder.requires_grad_(not args.freeze_encoder)
    if args.init is not None:
        print(start.load_classes_into(model.head, class_set))
    if teacher is not None:  # validation, if there is any, chooses others
        model.head.thresholds[: len(class_set)] = torch.from_numpy(teacher.thresholds)
    eval_model = build_model(config)
    eval_model.forest = forest
    eval_model.to(group.device)
    config |= eval_model.forest_sizes
    model = synchronise_batch_norm(model, group)

    # ---- optimizer, and what a step needs
    optimizer = make_optimizer(model, args.lr, args.weight_decay, 1.0 if start is None else args.encoder_lr_factor)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(group.device)
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        make_loss(args, group, generator),
        ema_decay=args.ema_decay,
        seed=args.seed,
        generator=generator,
        group=group,
        names=cache.names,
        bf16=args.bf16,
        compiled=args.compile,
    )
    windows = windows_of(args, start, run)
    validate = Validator(data, recordings.valid, class_set, rule, windows, group)

    # ---- run folder: a new one, or what an interrupted run left
    info = recordings.info() | {"frequency": frequency[: len(class_set)].tolist()}
    if args.init is not None:
        info["init"] = start.facts()
    members = [{"model": config, "seq_length": windows.seq_length, "overlap": windows.overlap}]
    run_config = make_config(signal_config, class_set, rule, members, args.settings(), info)
    history = start_or_resume(run, trainer, args, recordings, run_config, metric="auroc", shown=SHOWN)

    # ---- loop
    for epoch in range(history.n_epochs + 1, args.epochs + 1):
        train_stats = trainer.train_one_epoch(batches, epoch)
        copy_to_eval_model(trainer.ema_model, eval_model)
        scores, y_score = validate(eval_model)
        if history.is_best(scores["auroc"]):
            run.save("model.pth", {"members": [eval_model.state_dict()]})
            if len(recordings.valid):
                run.write_rows("valid_predictions.csv", validate.prediction_rows(y_score))
        history.add(train_stats, scores)
        if epoch == args.epochs:
            run.save("final_model.pth", {"members": [eval_model.state_dict()]})
        history.save_checkpoint(trainer)
        history.print_epoch()
    if len(recordings.test):
        tester = Validator(data, recordings.test, class_set, rule, windows, group)
        print(score_test(tester, eval_model, run))
    print(history.summary(f"python predict.py RECORD --model {run.path} --plot ecg.png"))


def main(argv=None):
    with clean_exit("train.py", "go on with --resume", IN_TRAINING):
        args, start = parse_args(argv)
        with process_group(args.cuda) as group, open_run(args, group) as run:
            train(args, start, run, group)


if __name__ == "__main__":
    main()
