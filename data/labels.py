"""SNOMED CT codes <-> columns: class sets, equivalent classes and names, from the Challenge's official tables."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from data.statements import PREFIX, TASKS, task_classes

TABLES = Path(__file__).resolve().parent / "challenge"
YEARS = {"cinc2020": 2020, "cinc2021": 2021}
PTBXL = {f"ptbxl_{task}": task for task in TASKS}  # class sets of PTB-XL's benchmark
CLASS_SETS = ("cinc2020", "cinc2021", "cpsc2018", "dset", *PTBXL)
NORMAL = "426783006"  # sinus rhythm, the class a lazy classifier would always answer

# In 2020 the pairs stand in the notes of the code table, in 2021 in the matrix itself (a|b). The first one stays.
PAIRS_2020 = (("713427006", "59118001"), ("284470004", "63593006"), ("427172004", "17338001"))

# Textual classes of the Challenge's first phase (April 2020): the code of the CPSC 2018 data first, then its
# equivalents.
CPSC2018 = {
    "AF": ("164889003",),
    "I-AVB": ("270492004",),
    "LBBB": ("164909002",),
    "Normal": (NORMAL,),
    "RBBB": ("59118001", "713427006"),
    "PAC": ("284470004", "63593006"),
    "PVC": ("164884008", "427172004", "17338001"),
    "STD": ("429622005",),
    "STE": ("164931005",),
}

# Codes that the scorer ignores although they name the same finding. Learning them as negatives would teach a network
# that a source's way of coding is a disease: CPSC 2018 and PTB-XL write every PVC as 164884008.
CLINICAL_ALIASES = {
    "427172004": ("164884008",),  # PVC: ventricular ectopics
    "164889003": ("314208002", "282825002", "426749004"),  # AF: rapid, paroxysmal, chronic
    "164909002": ("733534002",),  # LBBB: complete
    "10370003": ("251266004", "251268003"),
}  # pacing rhythm: ventricular, atrial
NOT_A_DIAGNOSIS = {"", "unknown", "nan"}


@dataclass(frozen=True)
class ClassSet:
    """The classes of a model or a scorer, one entry per column. `codes` are the canonical names (first of each pair of
    equivalents), `members` every code the scorer counts as the column (the canonical one included), `training_aliases`
    further codes of the same clinical meaning, which are training targets only."""

    name: str
    codes: tuple[str, ...]
    abbreviations: tuple[str, ...]
    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    training_aliases: tuple[tuple[str, ...], ...]

    def __post_init__(self):
        columns = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        if not self.codes:
            raise ValueError(f"class set {self.name!r} has no classes")
        if any(len(column) != len(self.codes) for column in columns.values()):
            raise ValueError(f"class set {self.name!r}: {', '.join(f'{len(c)} {n}' for n, c in columns.items())}")
        for code, members in zip(self.codes, self.members):
            if code not in members:
                raise ValueError(f"class set {self.name!r}: {code!r} is not among its own members {members}")
        taken = [code for group in self.members + self.training_aliases for code in group]
        for code in taken:
            if taken.count(code) > 1:
                raise ValueError(f"class set {self.name!r}: code {code!r} stands for two columns, or twice for one")

    @cached_property
    def scored_codes(self) -> dict[str, int]:
        """{code: column} as the official scorer counts."""
        return {code: column for column, group in enumerate(self.members) for code in group}

    @cached_property
    def taught_codes(self) -> dict[str, int]:
        """{code: column} of training: those, and further codes of the same clinical meaning."""
        aliases = {code: column for column, group in enumerate(self.training_aliases) for code in group}
        return self.scored_codes | aliases

    @cached_property
    def _columns_by_word(self) -> dict[str, int]:
        """{every word for a column: column}. The first meaning wins: codes, the set's own words, the official tables'
        words for the members, the textual CPSC classes.
        """
        table = diagnosis_table()
        scored = self.scored_codes
        words = [*scored.items(), *zip(self.abbreviations, range(len(self))), *zip(self.names, range(len(self)))]
        words += [(word, column) for code, column in scored.items() for word in table.get(code, ())]
        words += [(word, scored[code]) for word, codes in CPSC2018.items() for code in codes if code in scored]
        return {word.casefold(): column for word, column in reversed(words) if word}

    @property
    def year(self) -> int | None:
        """Of the Challenge whose classes these are; None if they are of none."""
        return YEARS.get(self.name)

    def __len__(self) -> int:
        return len(self.codes)

    def encode(self, dx: Iterable[str], training: bool = False) -> np.ndarray:
        """Diagnosis codes of one recording -> (C,) float32 of 0 and 1. Codes outside the set are left out."""
        return self.encode_all([dx], training)[0]

    def encode_all(self, dx_lists: Sequence[Iterable[str]], training: bool = False) -> np.ndarray:
        """R lists of diagnosis codes -> (R, C) float32. `training=True` counts the training aliases too.
        Raises ValueError for a string in place of a list of codes."""
        table = self.taught_codes if training else self.scored_codes
        targets = np.zeros((len(dx_lists), len(self)), np.float32)  # (R, C)
        for row, dx in enumerate(dx_lists):
            if isinstance(dx, str):
                raise ValueError(f"the diagnoses of a recording are a list of codes, not the string {dx!r}")
            for code in dx:
                if code in table:
                    targets[row, table[code]] = 1
        return targets

    def column(self, label: object) -> int | None:
        """Column of a code, an equivalent code, an abbreviation, a name or a textual CPSC class, in any case; or
        None.
        """
        return self._columns_by_word.get(str(label).strip().casefold())

    def shared_with(self, other: "ClassSet") -> dict[int, int]:
        """{column here: column of the same class in `other`}. First the canonical codes are compared, then every code
        that the scorer counts as the class, then further codes of the same clinical meaning; a column of `other` is
        given once.
        """
        canonical = {code: column for column, code in enumerate(other.codes)}
        of_training = [(*group, *aliases) for group, aliases in zip(self.members, self.training_aliases)]
        found = {}
        for groups, table in (
            ([(code,) for code in self.codes], canonical),
            (self.members, other.scored_codes),
            (of_training, other.taught_codes),
        ):
            for column, group in enumerate(groups):
                free = [table[code] for code in group if code in table and table[code] not in found.values()]
                if column not in found and free:
                    found[column] = free[0]
        return dict(sorted(found.items()))

    def to_dict(self) -> dict:
        """Plain lists and strings, for JSON."""
        return {
            key: value if isinstance(value, str) else [list(v) if isinstance(v, tuple) else v for v in value]
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict) -> "ClassSet":
        """Inverse of `to_dict`. Raises ValueError for a missing or unknown key, a wrong type or an inconsistent set."""
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(names):
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"a class set needs exactly the keys {names}, not {found}")
        if not isinstance(values["name"], str):
            raise ValueError(f"the name of a class set is a string, not {values['name']!r}")
        flat = {key: _strings(key, values[key]) for key in ("codes", "abbreviations", "names")}
        nested = {}
        for key in ("members", "training_aliases"):
            if not isinstance(values[key], (list, tuple)):
                raise ValueError(f"class set: {key} is {values[key]!r}, not a list of lists")
            nested[key] = tuple(_strings(key, group) for group in values[key])
        return cls(values["name"], **flat, **nested)


def load_class_set(name: str | Path, dx_lists: Iterable[Iterable[str]] | None = None) -> ClassSet:
    """ClassSet of a name: 'cinc2020' (27 codes scored as 24), 'cinc2021' (30 as 26), 'cpsc2018' (nine textual classes),
    'dset' (every SNOMED CT code or own word in `dx_lists`, sorted), 'ptbxl_all' and the other five tasks of PTB-XL's
    benchmark, or the path of a CSV file with the column `code` and, if wanted,
    `abbreviation`, `name` and `equivalents` (codes separated by |). Raises ValueError saying what is wrong."""
    name = str(name)
    if name in YEARS:
        groups = code_groups(YEARS[name])
        return _class_set(name, [group[0] for group in groups], groups)
    if name == "cpsc2018":
        groups = [(word, *codes) for word, codes in CPSC2018.items()]
        return _class_set(name, list(CPSC2018), groups, list(CPSC2018))
    if name in PTBXL:
        return _ptbxl_class_set(name)
    if name == "dset":
        if dx_lists is None:
            raise ValueError("the class set 'dset' needs the diagnoses of the recordings")
        codes = sorted({code for dx in dx_lists for code in dx if is_diagnosis(code)})
        if not codes:
            raise ValueError("the class set 'dset' is empty: no recording has a diagnosis")
        return _class_set(name, codes, [(code,) for code in codes], aliases=False)
    if name.endswith(".csv"):
        return _read_class_set(Path(name))
    raise ValueError(f"unknown class set {name!r}: it is one of {', '.join(CLASS_SETS)}, or a CSV file")


@cache
def read_matrix(year: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Reward matrix of the Challenge of `year` as it stands in its table: (column names, (N, N) float64)."""
    if year not in YEARS.values():
        raise ValueError(f"there is no reward matrix of {year}, only of {', '.join(map(str, YEARS.values()))}")
    with open(TABLES / f"weights_{year}.csv", newline="", encoding="utf-8") as file:
        (_, *columns), *rows = csv.reader(file)
    if [row[0] for row in rows] != columns:
        raise ValueError(f"{file.name}: rows and columns are not the same classes")
    values = np.array([row[1:] for row in rows], np.float64)
    values.setflags(write=False)
    return tuple(columns), values


def code_groups(year: int) -> tuple[tuple[str, ...], ...]:
    """The scored codes of `year`, in the matrix's order: one tuple per column, equivalents together, first one
    first.
    """
    merged = {code: pair for pair in PAIRS_2020 for code in pair} if year == 2020 else {}
    groups = [merged.get(column, tuple(column.split("|"))) for column in read_matrix(year)[0]]
    return tuple(dict.fromkeys(groups))


def diagnosis_table() -> dict[str, tuple[str, str]]:
    """{code: (abbreviation, name)} of every diagnosis in the official tables; where they differ, the later one
    holds.
    """
    return dict(_diagnosis_rows())


@cache
def _diagnosis_rows():
    table = {}
    for year in YEARS.values():
        for kind in ("unscored", "scored"):
            with open(TABLES / f"dx_mapping_{kind}_{year}.csv", newline="", encoding="utf-8") as file:
                table.update({row[1]: (row[2], row[0]) for row in list(csv.reader(file))[1:]})
    return tuple(table.items())


def _class_set(name, codes, groups, abbreviations=None, aliases=True):
    """ClassSet with names from the official tables (those of every member, as a column means any of them)."""
    table = diagnosis_table()
    known = [[code for code in group if code in table] for group in groups]
    names = tuple(" / ".join(table[code][1] for code in group) for group in known)
    if abbreviations is None:
        abbreviations = [table[group[0]][0] if group else "" for group in known]
    taken = {code for group in groups for code in group}
    further = [
        tuple(alias for code in group for alias in CLINICAL_ALIASES.get(code, ()) if aliases and alias not in taken)
        for group in groups
    ]
    return ClassSet(name, tuple(codes), tuple(abbreviations), names, tuple(map(tuple, groups)), tuple(further))


def is_diagnosis(code: str) -> bool:
    """Whether a code is one to be learned if all are: neither a word for nothing, nor a statement of PTB-XL, whose
    meaning stands beside it in SNOMED CT.
    """
    return code.casefold() not in NOT_A_DIAGNOSIS and not code.startswith(PREFIX)


def _ptbxl_class_set(name):
    """Classes named by their acronyms, each of which counts with and without the prefix."""
    classes = task_classes(PTBXL[name])
    groups = [
        tuple(dict.fromkeys((code, *(PREFIX + acronym for acronym in acronyms))))
        for code, (_, acronyms) in classes.items()
    ]
    names = [title for title, _ in classes.values()]
    return ClassSet(name, tuple(classes), tuple(classes), tuple(names), tuple(groups), ((),) * len(groups))


def _read_class_set(path):
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [column.strip().casefold() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise ValueError(f"class set file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"class set file {path} cannot be read: {error}") from None
    allowed = {"code", "abbreviation", "name", "equivalents"}
    if "code" not in columns or len(set(columns)) != len(columns) or set(columns) - allowed:
        raise ValueError(
            f"{path}, line 1: the columns are 'code' and, if wanted, 'abbreviation', 'name' and "
            f"'equivalents', not {columns}"
        )
    codes, abbreviations, names, groups = [], [], [], []
    table = diagnosis_table()
    for line, row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {line}: as many fields as columns are needed")
        row = {key: value.strip() for key, value in row.items()}
        others = [code.strip() for code in row.get("equivalents", "").split("|") if code.strip()]
        group = (row["code"], *others)
        if not row["code"] or len(set(group)) < len(group) or any(set(group) & set(other) for other in groups):
            raise ValueError(f"{path}, line {line}: the code is empty or one was used before: {'|'.join(group)!r}")
        official = table.get(row["code"], ("", ""))
        codes.append(row["code"])
        groups.append(group)
        abbreviations.append(row.get("abbreviation") or official[0])
        names.append(row.get("name") or official[1])
    if not codes:
        raise ValueError(f"{path} lists no classes")
    return ClassSet(str(path), tuple(codes), tuple(abbreviations), tuple(names), tuple(groups), ((),) * len(codes))


def _strings(key, values):
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"class set: {key} holds {values!r} where a list of strings belongs")
    return tuple(values)
