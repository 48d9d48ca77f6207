"""What a training starts from, a trained run, a pre-trained encoder or nothing, and what follows from it for its flags,
its decision rule and its windows.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from data.labels import ClassSet
from data.leads import LEADS
from engine.decision import choose_rule
from engine.distil import Teacher
from engine.handover import FINE_TUNING, FINE_TUNING_LR, Pretrained, read_pretrained
from engine.initial_run import InitialRun, read_initial
from engine.resume import resumed_windows
from engine.run_folder import RunFolder
from engine.windows import OVERLAP, Windows

FROM_SCRATCH = {"lr": 0.01, "epochs": 60, "encoder_lr_factor": 0.3}
_XRESNET = FINE_TUNING["xresnet"]
# Help of the flags whose defaults depend on the start.
DEFAULTS = {
    "lr": f"default: {FROM_SCRATCH['lr']}; {FINE_TUNING_LR} with --init or a pre-trained encoder; "
    f"{_XRESNET['lr']} with a pre-trained xresnet",
    "epochs": f"default: {FROM_SCRATCH['epochs']}; {_XRESNET['epochs']} with a pre-trained xresnet",
    "encoder_lr_factor": f"default: {FROM_SCRATCH['encoder_lr_factor']}; {_XRESNET['encoder_lr_factor']} of an xresnet",
}


def read_start(args: Namespace, refuse: Callable[[str], None]) -> InitialRun | Pretrained | None:
    """What training starts from; sets the flags that it decides, and the defaults of those that are not given.

    Args:
        args: the flags.
        refuse: ends the script with a message, as `ArgumentParser.error` does.

    Returns:
        the run of --init, the pre-trained encoder in --folder, or None.

    Raises:
        RunError: it cannot be read, or contradicts a flag.
    """
    start = read_pretrained(args.folder)
    if args.init is not None:
        if start is not None:
            refuse(f"--init {args.init}: --folder {args.folder} holds a pre-trained encoder: name another --folder")
        start = read_initial(args)
    if start is not None:
        start.apply(args)
    elif args.freeze_encoder or (args.encoder_lr_factor is not None and not args.resume and args.config is None):
        flag = "--freeze_encoder" if args.freeze_encoder else "--encoder_lr_factor"
        refuse(f"{flag} needs --init RUN, or a --folder with a pre-trained encoder, see pretrain.py")
    elif args.config is not None and Path(args.config).with_name("pretrain_config.json").exists():
        refuse(f"{args.config} was fine-tuned: copy the files pretrain_* beside it into --folder first")
    for name, value in FROM_SCRATCH.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.forest and len(args.leads) < len(LEADS):
        refuse(f"--forest {args.forest} needs all {len(LEADS)} leads: leave out --leads or --forest")
    if args.forest and not args.covariates:
        refuse(f"--forest {args.forest} decides on age, sex and rhythm, too: leave out --no-covariates or --forest")
    if args.lead_subsets and len(args.leads) < len(LEADS):
        refuse(
            f"--lead_subsets hides some of the twelve leads, and --leads {' '.join(args.leads)} reads no others than "
            "these: give one of the two"
        )
    return start


def decision_rule(
    args: Namespace, class_set: ClassSet, start: InitialRun | Pretrained | None, teacher: Teacher | None
) -> dict:
    """That of --decision; else the teacher's; else, for the same classes, that of --init; else the class set's own.

    Args:
        args: the flags.
        class_set: what is learned.
        start: from `read_start`.
        teacher: of --teacher, or None.
    """
    rule = choose_rule(args.decision, class_set)
    if args.decision is not None:
        return rule
    if teacher is not None:
        return teacher.rule
    return rule if args.init is None else start.rule_for(class_set, rule)


def windows_of(args: Namespace, start: InitialRun | Pretrained | None, run: RunFolder) -> Windows:
    """How the network reads whole recordings: as before where it goes on from a run, else without overlap."""
    if args.resume and (run / "config.json").exists():
        return resumed_windows(run, len(args.leads))
    return Windows(args.seq_length, OVERLAP) if args.init is None else start.windows
