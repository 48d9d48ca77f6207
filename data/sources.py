"""The eight collections of the PhysioNet/CinC Challenges 2020 and 2021: how many recordings each has, and whose a
recording is. Counts are those that the Challenge of 2021 published for its training set.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from data.records import Record

MIN_BY_ID = 20  # recordings of a folder whose ids alone say where they come from


class Collection(NamedTuple):
    """A collection as published; `words` are the names of its folder, `ids` how its recordings are called."""

    name: str
    n_records: int
    words: tuple
    ids: str  # regular expression


COLLECTIONS = (
    Collection("CPSC", 6877, ("cpsc2018", "cpsc"), r"A\d{4}"),
    Collection("CPSC-Extra", 3453, ("cpsc2018extra", "cpscextra", "cpsc20182", "cpsc2"), r"Q\d{4}"),
    Collection("INCART", 74, ("stpetersburgincart", "stpetersburg", "incart"), r"I\d{4}"),
    Collection("PTB", 516, ("ptb",), r"S\d{4}"),
    Collection("PTB-XL", 21837, ("ptbxl",), r"HR\d{5}"),
    Collection("Georgia", 10344, ("georgia", "g12ec", "ga"), r"E\d{5}"),
    Collection(
        "Chapman-Shaoxing",
        10247,
        ("chapmanshaoxing", "chapman", "shaoxing"),
        r"JS(?:0\d{4}|10[0-5]\d\d|106[0-3]\d|1064[0-6])",
    ),
    Collection("Ningbo", 34905, ("ningbo",), r"JS\d{5}"),
)
_BY_WORD = {word: collection for collection in COLLECTIONS for word in collection.words}


def sources_of(records: Sequence[Record]) -> list[str]:
    """For each recording the name of its collection, or of its folder ('.' for the top).

    A folder on its way decides, by name. Where none is known, the ids of the recordings in a folder do, if there are
    MIN_BY_ID of them and all are called as in one of the collections: A0001 alone may be anybody's.
    """
    by_folder = defaultdict(list)
    for record in records:
        by_folder[record.source].append(record.record_id)
    named = {source: collection_named(source) for source in by_folder}
    by_id = {source: len(ids) >= MIN_BY_ID and all(map(collection_by_id, ids)) for source, ids in by_folder.items()}
    names = []
    for record in records:
        collection = named[record.source]
        if collection is None and by_id[record.source]:
            collection = collection_by_id(record.record_id)
        names.append(collection.name if collection else record.source or ".")
    return names


def collection_named(source: str) -> Collection | None:
    """Collection that a path with forward slashes names, by its innermost folder that does."""
    for folder in reversed(source.split("/")):
        word = re.sub(r"[^a-z0-9]", "", folder.lower())
        found = _BY_WORD.get(word) or _BY_WORD.get(re.sub("^(wfdb|training)", "", word))
        if found:
            return found
    return None


def collection_by_id(record_id: str) -> Collection | None:
    """Collection whose recordings are called like this."""
    return next((each for each in COLLECTIONS if re.fullmatch(each.ids, record_id)), None)


def completeness(collection: Collection, n_records: int) -> str:
    """'complete', or how many recordings are missing, or too many."""
    if n_records < collection.n_records:
        return f"incomplete, {collection.n_records - n_records:,} missing"
    if n_records > collection.n_records:
        return f"{n_records - collection.n_records:,} more than published"
    return "complete"
