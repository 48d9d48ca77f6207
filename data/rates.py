"""PTB-XL as downloaded holds every ECG at two rates, in records100/ and records500/: one of them is enough."""

import re
from collections import defaultdict
from collections.abc import Sequence

from data.records import Record

RATES = {"lr": 100, "hr": 500}  # Hz, by the ending of a recording's name
DEFAULT_RATE = 500
_RATED_NAME = re.compile(r"(?P<number>\d+)_(?P<rate>lr|hr)")
_RATED_FOLDERS = {"records100", "records500", "100", "500", "100hz", "500hz", "lr", "hr"}


def one_rate_only(records: Sequence[Record], rate: int = DEFAULT_RATE) -> tuple[list[Record], str]:
    """Of each pair `records100/00000/00001_lr` and `records500/00000/00001_hr`, or of such a pair in one folder, keep
    one. An ECG that is there at one rate only is kept.

    Args:
        records: from `find_records`.
        rate: which of the two is kept, 100 or 500 Hz.

    Returns:
        the records that are kept, in the same order, and a line that says how many were left out and how to take the
        others ("" if there were none).

    Raises:
        ValueError: if the rate is none of the two.
    """
    if rate not in RATES.values():
        raise ValueError(f"--records {rate}: PTB-XL has its recordings at {' and '.join(map(str, RATES.values()))} Hz")
    same_ecg = defaultdict(dict)  # {ECG: {rate: place in records}}
    for place, record in enumerate(records):
        match = _RATED_NAME.fullmatch(record.record_id)
        if match:
            folders = tuple("" if part.casefold() in _RATED_FOLDERS else part for part in record.source.split("/"))
            same_ecg[folders, match["number"]][RATES[match["rate"]]] = place
    left_out = {
        place for places in same_ecg.values() if rate in places for other, place in places.items() if other != rate
    }
    if not left_out:
        return list(records), ""
    other = next(value for value in RATES.values() if value != rate)
    kept = [record for place, record in enumerate(records) if place not in left_out]
    return kept, (
        f"left out: {len(left_out)} recordings at {other} Hz, which are the same ECGs as others at {rate} Hz "
        f"(--records {other} takes them instead)"
    )
