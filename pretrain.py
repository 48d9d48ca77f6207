"""Pre-train an encoder on ECGs without labels: it predicts samples that it has not seen yet.

    python pretrain.py                                     ./Training_WFDB, or the shipped sample if that is not there
    python pretrain.py --input_folder DIR --folder RUN     your own recordings, into the folder RUN, without diagnoses
    python pretrain.py --encoder causal_resnet
    python pretrain.py --k_steps_ahead 5 25 100            how far ahead, in samples at --sample_freq
    python pretrain.py --leads I II                        an encoder of these leads and no others
    python pretrain.py --folder RUN --resume               go on after an interruption
    python train.py --folder RUN                           then: fine-tune it on the same recordings, with their labels

After each patch of the signal the encoder's state predicts all leads at several distances ahead. pretrain_history.csv
gives the loss beside two baselines in the same unit, "nothing changes" (persistence) and a linear autoregressive
predictor, and the skill, the share of a baseline's loss that the model saves. engine/forecasting.py defines the unit.

The run folder holds these, each with the prefix pretrain_: config.json, model.pth (best epoch), final_model.pth (last
epoch), checkpoint.pth (for --resume), history.csv and its picture history.png, train_ids.txt, valid_ids.txt,
recordings.csv (the same by content), skipped_records.csv and record_warnings.txt.
"""

import numpy as np
import torch

from data.dataset import unlabelled_dataset
from data.metadata import read_metadata
from data.overview import overview
from engine.augment import change_gain
from engine.baselines import Persistence, fit_linear, skill
from engine.distributed import process_group
from engine.forecasting import error_unit, huber, losses_ahead, typical_spread
from engine.handover import make_pretrain_config
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.options import TrainingParser
from engine.recordings import open_recordings, split_recordings
from engine.resume import open_run, start_or_resume
from engine.run_folder import PRETRAIN, RunError
from engine.script import clean_exit
from models import CAUSAL_ENCODERS, build_encoder
from models.next_sample import NextSampleModel

# Columns of pretrain_history.csv that are printed.
SHOWN = {
    "train_loss": "train",
    "valid_loss": "valid",
    "skill_persistence": "skill against persistence",
    "skill_linear": "against linear",
}


def parse_args(argv=None):
    """The flags, checked. Encoders are offered without the size that would let them see the future."""
    parser = TrainingParser(__doc__, epochs=50, encoders=CAUSAL_ENCODERS, hidden_sizes=("bidirectional",))
    group = parser.add_argument_group("what the model reads and predicts")
    parser.add_leads_argument(group)
    group.add_argument("--sample_freq", type=float, default=100.0, help="Hz (default: %(default)s)")
    group.add_argument("--seq_length", type=int, default=800, help="samples in a window (default: %(default)s)")
    group.add_argument(
        "--k_steps_ahead",
        type=int,
        nargs="+",
        default=[2, 5, 10, 15, 20, 30, 40, 50, 75, 100],
        metavar="K",
        help="samples ahead of the last seen one (default: %(default)s)",
    )
    group = parser.add_argument_group("training")
    group.add_argument("--batch_size", type=int, default=64, help="windows (default: %(default)s)")
    group.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default: %(default)s)")
    group.add_argument("--weight_decay", type=float, default=0.05, help="default: %(default)s")
    group.add_argument("--ema_decay", type=float, default=0.99, help="of the averaged weights (default: %(default)s)")
    group.add_argument(
        "--gain",
        type=float,
        default=0.2,
        help="augmentation: spread of each window's amplification (default: %(default)s)",
    )
    args = parser.parse(argv, PRETRAIN)
    parser.check_sizes(args)
    if min(args.k_steps_ahead) < 1:
        parser.error("--k_steps_ahead must be positive: the model has seen the other samples")
    if max(args.k_steps_ahead) >= args.seq_length:
        parser.error(
            f"--k_steps_ahead {max(args.k_steps_ahead)} is not within a window of --seq_length {args.seq_length} "
            "samples"
        )
    return args


def make_loss(scale, gain, group, generator):
    """Robust error of the predictions for windows of random amplification, each distance ahead weighing the same.
    Every process changes the whole batch of B windows alike, and computes its own rows of it, b = B / number of
    processes.
    """
    scale = torch.tensor(scale, device=group.device)

    def loss_fn(model, batch):
        x, lengths = (group.all_gather(t.to(group.device, non_blocking=True)) for t in (batch.x, batch.lengths))
        x = change_gain(x, gain, generator)
        own = group.local_rows(len(x))
        x = x[own]
        lengths = lengths[own]
        prediction, future, valid = model(x, lengths)  # (b, n_leads, K, T')
        error, n = huber(prediction, future, valid, error_unit(x, lengths, scale))  # (K,), (K,)
        return (error / group.all_reduce(n.clone()).clamp(min=1)).mean()

    return loss_fn


def history_row(k_steps_ahead, loss, persistence, linear):
    """Columns of pretrain_history.csv from the validation losses (K,) of model and baselines, all distances first."""
    row = {
        "valid_loss": loss.mean(),
        "persistence_loss": persistence.mean(),
        "linear_loss": linear.mean(),
        "skill_persistence": skill(loss.mean(), persistence.mean()),
        "skill_linear": skill(loss.mean(), linear.mean()),
    }
    for k, *losses in zip(k_steps_ahead, loss, persistence, linear):
        row |= dict(zip((f"valid_loss_{k}", f"persistence_loss_{k}", f"linear_loss_{k}"), losses))
        row |= {f"skill_persistence_{k}": skill(losses[0], losses[1]), f"skill_linear_{k}": skill(losses[0], losses[2])}
    return {name: float(value) for name, value in row.items()}


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
    data = unlabelled_dataset(cache, read_metadata(args.metadata, cache.names, cache.duplicates))
    recordings = split_recordings(args, data)
    batches = recordings.batches(data, args, group)
    train_signals = [cache.signal(i) for i in recordings.train]
    valid_signals = [cache.signal(i) for i in recordings.valid]
    print(*overview(data, None, recordings.train, recordings.valid), sep="\n")
    print(f"{len(train_signals)} recordings train, {len(valid_signals)} validate; {run.path}")

    # ---- model
    torch.manual_seed(args.seed)
    encoder_config = args.encoder_config()
    scale = typical_spread(train_signals)  # n_leads numbers, mV
    model = NextSampleModel(build_encoder(encoder_config), args.k_steps_ahead, scale).to(group.device)

    # ---- optimizer, and what a step needs
    optimizer = make_optimizer(model, args.lr, args.weight_decay)
    schedule = make_schedule(optimizer, args.epochs * len(batches))
    generator = torch.Generator(group.device)
    trainer = Trainer(
        model,
        optimizer,
        schedule,
        make_loss(scale, args.gain, group, generator),
        ema_decay=args.ema_decay,
        seed=args.seed,
        generator=generator,
        group=group,
        names=cache.names,
        bf16=args.bf16,
        compiled=args.compile,
    )

    # ---- baselines, which the model must beat
    stride = model.encoder.stride

    def validate(predict):
        return losses_ahead(
            predict, valid_signals, args.seq_length, args.k_steps_ahead, stride, scale, group.device
        )  # (K,)

    persistence = validate(Persistence(args.k_steps_ahead, stride))
    linear = validate(
        fit_linear(train_signals, args.seq_length, args.k_steps_ahead, stride, scale, args.sample_freq, group.device)
    )
    if np.isnan([persistence, linear]).any():
        raise RunError(
            f"no validation recording shows {max(args.k_steps_ahead)} samples ahead: give a shorter --k_steps_ahead"
        )

    # ---- run folder: a new one, or what an interrupted run left
    head = {"k_steps_ahead": args.k_steps_ahead, "scale": scale}
    config = make_pretrain_config(signal_config, encoder_config, head, args.settings(), recordings.info())
    history = start_or_resume(run, trainer, args, recordings, config, metric="valid_loss", shown=SHOWN)
    recordings.write_hashes(run)

    # ---- loop
    for epoch in range(history.n_epochs + 1, args.epochs + 1):
        train_stats = trainer.train_one_epoch(batches, epoch)
        loss = validate(lambda x, lengths: trainer.ema_model(x, lengths)[0])  # (K,)
        scores = history_row(args.k_steps_ahead, loss, persistence, linear)
        if history.is_best(scores["valid_loss"]):
            save(run, "model.pth", trainer.ema_model)
        history.add(train_stats, scores)
        if epoch == args.epochs:
            save(run, "final_model.pth", trainer.ema_model)
        history.save_checkpoint(trainer)
        history.print_epoch()
    print(history.summary(f"python train.py --input_folder {args.input_folder} --folder {run.path}"))


def main(argv=None):
    with clean_exit("pretrain.py", "go on with --resume"):
        args = parse_args(argv)
        with process_group(args.cuda) as group, open_run(args, group, PRETRAIN) as run:
            pretrain(args, run, group)


if __name__ == "__main__":
    main()
