"""The leads of an ECG: their order, their names however they are spelt, and how limb leads follow from each other."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
INDEPENDENT = (0, 1, 6, 7, 8, 9, 10, 11)  # I, II and V1 to V6: the other four leads follow from I and II
# Every limb lead is a combination of the two independent ones, I and II (Einthoven, Goldberger).
_LIMB = {"I": (1, 0), "II": (0, 1), "III": (-1, 1), "aVR": (-0.5, -0.5), "aVL": (1, -0.5), "aVF": (-0.5, 1)}
# Spellings besides those of LEADS in any case: modified limb leads (MIT-BIH) and German/French 'DI'.
_SPELLINGS = {name.upper(): name for name in LEADS} | {
    f"{prefix}{name}": name for prefix in ("ML", "D") for name in ("I", "II", "III")
}


def lead_name(text: str) -> str | None:
    """Name in LEADS that a header means by `text`: any case, 'MLII', 'DII', 'lead II', 'ECG II'; None if it is none."""
    return _SPELLINGS.get(re.sub(r"^(ECG[ _])?(LEAD[ _])?", "", text.strip().upper()))


def standard_leads(names: Iterable[str]) -> tuple[str, ...]:
    """The leads that a user means by some names, spelt as for `lead_name`, in the order of LEADS. Raises ValueError,
    which says what to type, for a name that is unknown or given twice.
    """
    chosen = []
    for text in names:
        name = lead_name(text)
        if name is None:
            raise ValueError(f"{text!r} is not one of the 12 leads: name some of {' '.join(LEADS)}, spaces between")
        if name in chosen:
            raise ValueError(f"lead {name} is named twice: name each lead once")
        chosen.append(name)
    return tuple(name for name in LEADS if name in chosen)


@lru_cache(maxsize=256)
def plan_leads(
    names: tuple[str, ...], wanted: tuple[str, ...]
) -> tuple[dict[str, int], tuple[tuple[tuple[int, float], ...], ...]]:
    """How the leads that a model wants come from those of a header.

    Args:
        names: of the header's leads.
        wanted: of the model's, as in LEADS.

    Returns:
        rows {lead: row} of the known leads there are, and for each wanted one a tuple of (row, weight), empty where it
        is missing.

    Raises:
        ValueError: a lead stands twice, or none helps.
    """
    rows = {}
    for row, name in enumerate(map(lead_name, names)):
        if name in rows:
            raise ValueError(f"lead {name} stands twice ({names[rows[name]]!r} and {names[row]!r})")
        if name is not None:
            rows[name] = row
    if not rows:
        raise ValueError(f"none of its leads ({', '.join(names)[:200]}) is one of {' '.join(LEADS)}")
    pair = [name for name in _LIMB if name in rows][:2]
    plan = []
    for name in wanted:
        if name in rows:
            plan.append(((rows[name], 1.0),))
        elif name in _LIMB and len(pair) == 2:
            weights = np.linalg.solve(np.array([_LIMB[other] for other in pair], float).T, _LIMB[name])
            plan.append(tuple((rows[other], round(weight, 12)) for other, weight in zip(pair, weights.tolist())))
        else:
            plan.append(())
    if not any(plan):
        raise ValueError(f"none of its leads ({', '.join(rows)}) gives any that the model reads: {' '.join(wanted)}")
    return rows, tuple(plan)


def combine_leads(x: np.ndarray, stored: Sequence[int], plan: Sequence[Sequence[tuple[int, float]]]) -> np.ndarray:
    """The leads of a plan: x (len(stored), n) float32 mV, the leads in rows `stored` of the file -> (len(plan), n), x
    itself where that is all.
    """
    if plan == tuple(((row, 1.0),) for row in stored):
        return x
    place = {row: i for i, row in enumerate(stored)}
    out = np.zeros((len(plan), x.shape[1]), np.float32)
    for lead, terms in zip(out, plan):
        for row, weight in terms:
            lead += x[place[row]] if weight == 1 else np.float32(weight) * x[place[row]]
    return out


def limb_leads(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """III, aVR, aVL and aVF from leads I and II, both (T,): (4, T)."""
    weights = np.array([_LIMB[name] for name in LEADS[2:6]], np.float32)  # (4, 2)
    return weights @ np.stack([first, second])
