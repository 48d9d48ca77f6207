"""Recordings by names as people write them: with other folders in front, or an ending behind."""

import re
from collections import defaultdict
from collections.abc import Sequence

_ENDING = re.compile(r"\.(hea|mat|dat)$", re.IGNORECASE)


class NameIndex:
    """Finds recordings by names that may have other folders in front, and an ending behind."""

    def __init__(self, names: Sequence[str]):
        self.by_last = defaultdict(list)  # {name without folders: [(all parts of the name, row)]}
        for row, name in enumerate(names):
            parts = _parts(name)
            self.by_last[parts[-1]].append((parts, row))

    def rows(self, name: str) -> list[int]:
        """Rows of the recordings that `name` may mean, the folders before it being the same as far as both have some:
        those that have most in common with it. None: it is not there; several: it is ambiguous.
        """
        parts = _parts(name)
        found = defaultdict(list)
        for other, row in self.by_last.get(parts[-1], ()):
            shared = min(len(parts), len(other))
            if parts[-shared:] == other[-shared:]:
                found[shared, other == parts].append(row)
        return found[max(found)] if found else []


def _parts(name: str) -> tuple[str, ...]:
    """Folders and name, without ending: './a/R00.hea' -> ('a', 'R00')."""
    parts = [part for part in _ENDING.sub("", name.replace("\\", "/")).split("/") if part not in ("", ".", "..")]
    return tuple(parts) or (name,)
