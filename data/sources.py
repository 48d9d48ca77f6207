"""The eight collections of the PhysioNet/CinC Challenges 2020 and 2021: how many recordings each has, and whose a
recording is. Counts are those that the Challenge of 2021 published for its training set.
"""

import re
from typing import NamedTuple


class Collection(NamedTuple):
    """A collection as published; `words` are the names of its folder, `ids` how its recordings are called."""

    name: str
    n_records: int
    words: tuple
    ids: str  # regular expression


COLLECTIONS = (
    Collection("CPSC", 6877, ("cpsc2018", "cpsc"), r"A\d{4}"),
    Collection("CPSC-Extra", 3453, ("cpsc2018extra", "cpscextra", "cpsc2"), r"Q\d{4}"),
    Collection("INCART", 74, ("stpetersburgincart", "stpetersburg", "incart"), r"I\d{4}"),
    Collection("PTB", 516, ("ptb",), r"S\d{4}"),
    Collection("PTB-XL", 21837, ("ptbxl",), r"HR\d{5}"),
    Collection("Georgia", 10344, ("georgia", "g12ec"), r"E\d{5}"),
    Collection(
        "Chapman-Shaoxing", 10247, ("chapmanshaoxing", "chapman", "shaoxing"), r"JS(?:0\d{4}|10[0-5]\d\d|106[0-4]\d)"
    ),
    Collection("Ningbo", 34905, ("ningbo",), r"JS\d{5}"),
)
_BY_WORD = {word: collection for collection in COLLECTIONS for word in collection.words}


def collection_of(source: str, record_id: str) -> Collection | None:
    """Collection of a recording, by a folder on its way (`source`, with forward slashes) or else by its id; or None."""
    for folder in reversed(source.split("/")):
        found = _BY_WORD.get(re.sub(r"[^a-z0-9]", "", folder.lower()))
        if found:
            return found
    return next((each for each in COLLECTIONS if re.fullmatch(each.ids, record_id)), None)


def completeness(collection: Collection, n_records: int) -> str:
    """'complete', or how many recordings are missing, or too many."""
    if n_records < collection.n_records:
        return f"incomplete, {collection.n_records - n_records:,} missing"
    if n_records > collection.n_records:
        return f"{n_records - collection.n_records:,} more than published"
    return "complete"
