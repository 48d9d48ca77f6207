"""Pre-train an encoder on ECGs without labels: it predicts samples that it has not seen.

    python pretrain.py                                     ./Training_WFDB, or the shipped sample if that is not there
    python pretrain.py --input_folder DIR --folder RUN     your own recordings, into the folder RUN, without diagnoses
    python pretrain.py --encoder xresnet                   the classifier's own encoder, which looks both ways
    python pretrain.py --encoder causal_resnet
    python pretrain.py --k_steps_ahead 5 25 100            how far ahead, in samples at --sample_freq
    python pretrain.py --leads I II                        an encoder of these leads and no others
    python pretrain.py --folder RUN --resume               go on after an interruption
    python train.py --folder RUN                           then: fine-tune it on the same recordings, with their labels

A causal encoder (transformer, causal_resnet) sees no later sample: after each frame its state predicts all leads at
several distances ahead. From one that looks both ways (xresnet, resnet) leads and a stretch of every window are hidden;
it predicts these, and what the rest of the recording looks like: its mean beat, how its beats vary, its rhythm.

pretrain_history.csv gives the loss beside baselines in the same unit, and the skill, the share of a baseline's loss
that the model saves. Ahead: "nothing changes" (persistence) and a linear autoregressive predictor. Hidden: a straight
line (interpolation) and the best linear function of the leads that are visible; for the rest of the recording the best
constant; there valid_loss is the weighted sum that training minimises. engine/forecasting.py and engine/hidden.py
define the units.

The run folder holds these, each with the prefix pretrain_: config.json, model.pth (best epoch), final_model.pth (last
epoch), checkpoint.pth (for --resume), history.csv and its picture history.png, train_ids.txt, valid_ids.txt,
recordings.csv (the same by content), skipped_records.csv and record_warnings.txt.
"""

import torch

from data.dataset import unlabelled_dataset
from data.leads import LEADS
from data.overview import overview
from engine.ahead import SamplesAhead
from engine.distributed import process_group, synchronise_batch_norm
from engine.handover import make_pretrain_config
from engine.hidden import HiddenSamples
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.options import TrainingParser
from engine.recordings import open_recordings, read_own_metadata, split_recordings
from engine.resume import open_run, start_or_resume
from engine.run_folder import PRETRAIN
from engine.script import IN_TRAINING, clean_exit
from models import CAUSAL_ENCODERS, ENCODERS, build_encoder

# Flags whose defaults depend on what is predicted: what lies ahead of an encoder, or what is hidden from it.
AHEAD = {
    "epochs": 50,
    "seq_length": 800,
    "k_steps_ahead": [2, 5, 10, 15, 20, 30, 40, 50, 75, 100],
    "lr": 0.002,
    "weight_decay": 0.05,
    "ema_decay": 0.99,
    "gain": 0.2,
}
HIDDEN = {"epochs": 100, "seq_length": 250, "lr": 0.005, "weight_decay": 0.01, "ema_decay": 0.995, "gain": 0.25}
DEFAULTS = {name: AHEAD if name in CAUSAL_ENCODERS else HIDDEN for name in (*CAUSAL_ENCODERS, *ENCODERS)}


def parse_args(argv=None):
    """The flags, checked. The transformer is offered without the size that would let it see the future."""
    parser = TrainingParser(
        __doc__,
        encoders=DEFAULTS,
        hidden_sizes=("bidirectional",),
        defaults=DEFAULTS,
        test_fold="give it to train.py too",
    )
    group = parser.add_argument_group("what the model reads and predicts")
    parser.add_leads_argument(group)
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, help=f"samples in a window ({parser.default('seq_length')})")
    group.add_argument(
        "--k_steps_ahead",
        type=int,
        nargs="+",
        metavar="K",
        help=f"causal encoders: samples ahead of the last seen one ({parser.default('k_steps_ahead')})",
    )
    group = parser.add_argument_group("training")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, help=f"peak learning rate ({parser.default('lr')})")
    group.add_argument(
        "--weight_decay", type=float, help=f"of matrices and convolutions ({parser.default('weight_decay')})"
    )
    group.add_argument("--ema_decay", type=float, help=f"of the averaged weights ({parser.default('ema_decay')})")
    group.add_argument(
        "--gain", type=float, help=f"augmentation: spread of each window's amplification ({parser.default('gain')})"
    )
    args = parser.parse(argv, PRETRAIN)
    parser.check_sizes(args)
    if args.encoder not in CAUSAL_ENCODERS and len(args.leads) < len(LEADS):
        parser.error(
            f"--leads {' '.join(args.leads)}: --encoder {args.encoder} predicts leads that are hidden from it, so it "
            "needs all twelve; a causal encoder, e.g. --encoder transformer, does not"
        )
    if args.k_steps_ahead is not None:
        check_distances(parser, args)
    return args


def check_distances(parser, args):
    """Refuse samples ahead that cannot be predicted."""
    if args.encoder not in CAUSAL_ENCODERS:
        parser.error(f"--k_steps_ahead: --encoder {args.encoder} looks both ways, so it predicts hidden samples")
    if min(args.k_steps_ahead) < 1:
        parser.error("--k_steps_ahead must be positive: the model has seen the other samples")
    if max(args.k_steps_ahead) >= args.seq_length:
        parser.error(
            f"--k_steps_ahead {max(args.k_steps_ahead)} is not within a window of --seq_length {args.seq_length} "
            "samples"
        )


def save(run, name, model):
    run.save(name, {"encoder": model.encoder.state_dict(), "head": model.head.state_dict()})


def pretrain(args, run, group):
    """The whole experiment.

    Args:
        args: the Flags.
        run: the RunFolder to fill.
        group: the ProcessGroup of the processes that train together.
    """
    # ---- data: one memory map of preprocessed signals and a split by patient; no labels
    signal_config = args.signal_config()
    cache = open_recordings(args, signal_config, run, group)
    data = unlabelled_dataset(cache, read_own_metadata(args, cache))
    recordings = split_recordings(args, data)
    batches = recordings.batches(data, args, group)
    print(*overview(data, None, recordings.train, recordings.valid), sep="\n")
    print(f"{len(recordings.train)} recordings train, {len(recordings.valid)} validate; {run.path}")

    # ---- model, and what it predicts: samples ahead, or samples that are hidden from an encoder that looks both ways
    torch.manual_seed(args.seed)
    encoder_config = args.encoder_config()
    generator = torch.Generator(group.device)
    objective_class = SamplesAhead if args.encoder in CAUSAL_ENCODERS else HiddenSamples
    objective = objective_class(args, build_encoder(encoder_config), recordings, group, generator)
    model = synchronise_batch_norm(objective.model, group)

    # ---- optimizer, and what a step needs
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        objective.loss,
        ema_decay=args.ema_decay,
        seed=args.seed,
        generator=generator,
        group=group,
        names=cache.names,
        bf16=args.bf16,
        compiled=args.compile,
    )

    # ---- run folder: a new one, or what an interrupted run left
    config = make_pretrain_config(
        signal_config, encoder_config, objective.head_config, args.settings(), recordings.info()
    )
    history = start_or_resume(run, trainer, args, recordings, config, metric="valid_loss", shown=objective.shown)
    recordings.write_hashes(run)

    # ---- loop
    for epoch in range(history.n_epochs + 1, args.epochs + 1):
        train_stats = trainer.train_one_epoch(batches, epoch)
        scores = objective.scores(trainer.ema_model)
        if history.is_best(scores["valid_loss"]):
            save(run, "model.pth", trainer.ema_model)
        history.add(train_stats, scores)
        if epoch == args.epochs:
            save(run, "final_model.pth", trainer.ema_model)
        history.save_checkpoint(trainer)
        history.print_epoch()
    print(history.summary(f"python train.py --input_folder {args.input_folder} --folder {run.path}"))


def main(argv=None):
    with clean_exit("pretrain.py", "go on with --resume", IN_TRAINING):
        args = parse_args(argv)
        with process_group(args.cuda) as group, open_run(args, group, PRETRAIN) as run:
            pretrain(args, run, group)


if __name__ == "__main__":
    main()
