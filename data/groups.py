"""Which kind of finding a diagnosis is: rhythm, conduction, axis and voltage, ectopy, repolarisation and infarction.

The order of the groups is that in which an ECG is read. Codes are those of the Challenges' tables (2020, 2021).
"""

OTHER = "other"
GROUPS = {
    "rhythm": """
        426783006 426177001 427084000 427393009 426627000 164889003 164890007 195080001 314208002 282825002 426749004
        10370003 251266004 251268003 713422000 426761007 67198005 251166008 233897008 106068003 195101003 17366009
        233892002 29320008 426664006 426995002 426648003 61277005 49260003 81898007 164895002 425856008 164896001
        111288001 60423000 74615001 5609005 65778007 698247007""",
    "conduction": """
        270492004 164947007 49578007 195042002 54016002 426183003 27885002 233917008 204384007 50799005 713427006
        59118001 713426002 164909002 733534002 251120003 6374002 445118002 445211001 698252002 82226007 195060002
        74390002 164942001""",
    "axis and voltage": """
        39732003 47665007 251200008 251199005 251198002 61721007 251146004 55827005 164873001 89792004 266249003
        446358003 446813000 195126007 67741000119109 253352002 253339007 67751000119106 251223006 251205003 164912004
        164921003 365413008""",
    "ectopy": """
        284470004 63593006 251170000 164884008 427172004 17338001 251182009 251164006 251187003 75532003 13640000
        251173003 251168009 11157007 251180001""",
    "repolarisation and infarction": """
        164934002 59931005 251259000 164937009 55930002 429622005 704997005 164931005 164930006 428750005 428417006
        111975006 77867006 418818005 370365005 164917005 164865005 164867002 57054005 54329005 164861001 413444003
        413844008 426434006 425419005 425623009 53741008""",
}
_GROUP_OF = {code: group for group, codes in GROUPS.items() for code in codes.split()}
_ORDER = {code: i for i, code in enumerate(_GROUP_OF)}
NAMES = (*GROUPS, OTHER)


def group_of(codes: tuple[str, ...] | list[str]) -> str:
    """Group of a class, given all codes that mean it (as `ClassSet.members` holds them); OTHER if none is known."""
    return next((_GROUP_OF[code] for code in codes if code in _GROUP_OF), OTHER)


def clinical_order(members: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> list[int]:
    """Columns of a class set in the order in which an ECG is read; unknown ones last, as they come."""
    first = [min((_ORDER[code] for code in codes if code in _ORDER), default=len(_ORDER)) for codes in members]
    return sorted(range(len(first)), key=lambda column: first[column])
