"""Which leads a reader needs at least to establish a diagnosis: from lead I alone nobody can state the heart's axis.

Textbook criteria (for conduction those of AHA, ACCF and HRS, 2009). A diagnosis that is not listed, such as any rhythm,
can be established in whatever lead shows it, or its leads have not been written down here.
"""

from collections.abc import Collection, Sequence
from itertools import combinations, product

from data.labels import ClassSet
from data.leads import LEADS

LIMB = LEADS[:6]
CHEST = LEADS[6:]
TWO_LIMB = tuple(combinations(LIMB, 2))  # two of them give the frontal plane, and so the four others
V1_OR_V2 = (("V1",), ("V2",))
LATERAL = (("I",), ("aVL",), ("V5",), ("V6",))
WALLS = (("I", "aVL"), ("II", "III", "aVF"), CHEST)  # leads that lie beside each other

# (codes, in words, combinations of leads of which one is enough)
NEEDS = (
    # An axis is a direction in the frontal plane, which one lead is only a projection of. Fascicular blocks are defined
    # by the axis: left anterior, left posterior.
    ("39732003 47665007 251200008 445118002 445211001", "two limb leads", TWO_LIMB),
    # QRS below 0.5 mV in all limb leads, or below 1 mV in all chest leads: in one lead the axis may make it small.
    ("251146004", "two limb leads or V1 to V6", (*TWO_LIMB, CHEST)),
    # Right bundle branch block is rsR' in V1 or V2; a wide S in I and V6 is the rest of it.
    ("713427006 59118001 713426002", "V1 or V2", V1_OR_V2),
    # Left bundle branch block is a broad, notched R in the lateral leads, a QS or rS in V1.
    ("164909002 733534002 6374002", "I, aVL, V5, V6 or V1", (*LATERAL, ("V1",))),
    # A wide QRS that is neither of the two blocks: both must be ruled out.
    (
        "698252002",
        "V1 or V2 with I, aVL, V5 or V6",
        tuple(right + left for right, left in product(V1_OR_V2, LATERAL)),
    ),
    # A Q wave counts where two leads beside each other have it.
    ("164917005", "two leads of one wall", tuple(pair for wall in WALLS for pair in combinations(wall, 2))),
    # How R grows from V1 to V4.
    ("365413008", "V1 to V4", (CHEST[:4],)),
)
_NEED_OF = {code: (text, enough) for codes, text, enough in NEEDS for code in codes.split()}


def needs(members: Sequence[Collection[str]], leads: Collection[str]) -> dict[int, str]:
    """What would be needed for the classes that cannot be established.

    Args:
        members: the codes of each class, as `ClassSet.members`.
        leads: that are there.

    Returns:
        {column of a class: its leads in words}, of those for which `leads` are not enough.
    """
    there = set(leads)
    if len(there & set(LIMB)) >= 2:
        there |= set(LIMB)
    found = {}
    for column, codes in enumerate(members):
        text, enough = next((_NEED_OF[code] for code in codes if code in _NEED_OF), ("", ((),)))
        if not any(there.issuperset(combination) for combination in enough):
            found[column] = text
    return found


def needs_text(found: dict[int, str], class_set: ClassSet) -> str:
    """'LAD, RAD (two limb leads); IRBBB (V1 or V2)': what `needs` found for a class set, by abbreviation."""
    groups = {}
    for column, text in found.items():
        groups.setdefault(text, []).append(class_set.abbreviations[column] or class_set.codes[column])
    return "; ".join(f"{', '.join(group)} ({text})" for text, group in groups.items())


def needs_lines(class_set: ClassSet, leads: Sequence[str]) -> list[str]:
    """A line that says which classes cannot be established from the leads of a model, or none."""
    found = needs(class_set.members, leads)
    return [f"Not to be established from {', '.join(leads)} alone: {needs_text(found, class_set)}"] if found else []
