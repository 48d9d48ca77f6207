"""What is in a folder of recordings, before anything is trained on it.

    python -m data.inspect FOLDER                     tables in the terminal, from the headers alone
    python -m data.inspect FOLDER --html card.html    the same as one page
    python -m data.inspect FOLDER --signals           reads the samples too: exact duplicates, quality

Recordings by source, rates, lengths, leads, units and gains, age and sex, classes by source with names, recordings
without diagnosis, ids that occur twice, unreadable recordings with the reason; and which download of the eight
Challenge collections is incomplete. With --signals also recordings whose samples are the same, whatever their names,
and leads that are flat, saturated, not numbers, break Einthoven's law or are off by a factor of 1000.
The exit status is 1 if a recording cannot be read.
"""

import argparse
import math
import os
import sys
from collections import Counter, defaultdict
from statistics import median

from data.examine import Facts, Fault, examined
from data.formats.ptbxl import compare_statements
from data.groups import group_of
from data.headers import RecordError, printable
from data.labels import YEARS, code_groups, diagnosis_table
from data.metadata_files import find_table
from data.page import Section, Table, page_text, write_page
from data.records import Record, find_records
from data.sources import COLLECTIONS, completeness

LISTED = 20  # rows of a list of faults; the rest is counted


def card(records: list[Record], results: list[Facts | Fault], signals: bool) -> list[Section]:
    """All sections on a folder."""
    found = [item for item in results if isinstance(item, Facts)]
    faults = [item for item in results if isinstance(item, Fault)]
    groups = by_source(found)
    sections = [sources_section(groups, faults)]
    if found:
        sections += [signals_section(groups), people_section(groups), classes_section(groups)]
        sections.append(doubles_section(records, found))
    if signals and found:
        sections.append(quality_section(groups))
    rows = [[fault.name, fault.reason] for fault in faults]
    parts = [listed(["recording", "reason"], rows)] if rows else []
    sections.append(Section("unreadable", "Unreadable", [f"{len(faults):,} recordings cannot be read."], parts))
    return sections


def by_source(found):
    """{source: [Facts]} in the order of the Challenge's collections, other folders after them."""
    groups = defaultdict(list)
    for facts in found:
        groups[facts.source].append(facts)
    names = [collection.name for collection in COLLECTIONS]
    return {name: groups[name] for name in sorted(groups, key=lambda n: (names.index(n) if n in names else 99, n))}


def sources_section(groups, faults):
    """Recordings by source, and which download is incomplete."""
    published = {collection.name: collection for collection in COLLECTIONS}
    unreadable = Counter(fault.source for fault in faults)
    rows = []
    for name in [*groups, *(name for name in unreadable if name not in groups)]:
        own = groups.get(name, [])
        n = len(own) + unreadable[name]
        state = completeness(published[name], n) if name in published else ""
        without = sum(1 for facts in own if not facts.dx)
        total = f"{published[name].n_records:,}" if name in published else ""
        rows.append([name, state, f"{n:,}", total, f"{without:,}", f"{unreadable[name]:,}"])
    absent = [name for name in published if name not in groups and not unreadable[name]]
    texts = [f"None of: {', '.join(absent)}."] if absent else []
    columns = ["source", "against what was published", "recordings", "published", "without diagnosis", "unreadable"]
    return Section("sources", "Recordings by source", texts, [Table(columns, rows, n_text=2)])


def signals_section(groups):
    """Rates, lengths, leads, units and gains by source."""
    rows = []
    for name, own in groups.items():
        seconds = sorted(facts.seconds for facts in own if facts.seconds is not None)
        lengths = f"{seconds[0]:.4g} / {median(seconds):.4g} / {seconds[-1]:.6g}" if seconds else "unknown"
        rows.append(
            [
                name,
                frequent(f"{facts.sample_freq:g}" for facts in own),
                lengths,
                frequent(facts.leads for facts in own),
                frequent(facts.scale for facts in own),
            ]
        )
    columns = ["source", "Hz", "seconds: least / median / most", "leads", "gain and unit"]
    return Section("signals", "Rates, lengths, leads and units", [], [Table(columns, rows, n_text=5)])


def people_section(groups):
    """Age and sex by source."""
    rows = []
    for name, own in groups.items():
        ages = sorted(facts.age for facts in own if not math.isnan(facts.age))
        low, middle, high = (f"{ages[int(q * (len(ages) - 1))]:g}" if ages else "" for q in (0.05, 0.5, 0.95))
        children = sum(1 for age in ages if age < 18)
        sexes = Counter(facts.sex for facts in own)
        numbers = [len(own) - len(ages), children, sexes["Female"], sexes["Male"], sexes[None]]
        rows.append([name, low, middle, high, *(f"{n:,}" for n in numbers)])
    columns = ["source", "5 % younger than", "median age", "5 % older than", "age unknown", "below 18"]
    columns += ["female", "male", "sex unknown"]
    return Section("people", "Age and sex", [], [Table(columns, rows)])


def classes_section(groups):
    """Every diagnosis code by source, the most frequent first."""
    table = diagnosis_table()
    scored = {str(year): {code for group in code_groups(year) for code in group} for year in YEARS.values()}
    counts = {name: Counter(code for facts in own for code in facts.dx) for name, own in groups.items()}
    total = sum(counts.values(), Counter())
    rows = []
    for code, n in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        abbreviation, name = table.get(code, ("", "not in the Challenge's tables"))
        years = [year for year in scored if code in scored[year]]
        state = " ".join(years) if years else "unscored" if code in table else "unknown"
        rows.append(
            [name, abbreviation, code, group_of([code]), state, f"{n:,}", *(f"{c[code]:,}" for c in counts.values())]
        )
    columns = ["diagnosis", "", "code", "group", "scored in", "all", *groups]
    unknown = sum(1 for row in rows if row[4] == "unknown")
    text = f"{len(rows)} codes, {unknown} of them not in the Challenge's tables."
    return Section("classes", "Diagnoses by source", [text], [Table(columns, rows, n_text=5)])


def doubles_section(records, found):
    """Ids that occur twice and, where samples were read, recordings whose samples are the same."""
    ids = defaultdict(list)
    for record in records:
        ids[record.record_id].append(record.name)
    names = [sorted(group) for group in ids.values() if len(group) > 1]
    parts = [listed(["id in several folders"], [[", ".join(group)] for group in names])] if names else []
    texts = [f"{len(names):,} ids occur in several folders."]
    if any(facts.digest for facts in found):
        same = defaultdict(list)
        for facts in found:
            same[facts.digest].append(facts)
        groups = [group for group in same.values() if len(group) > 1]
        across = sum(1 for group in groups if len({facts.source for facts in group}) > 1)
        texts.append(
            f"{len(groups):,} sets of recordings with exactly the same samples, {across:,} of them across sources."
        )
        if groups:
            parts.append(listed(["same samples"], [[", ".join(facts.name for facts in group)] for group in groups]))
    else:
        texts.append("Samples were not compared: --signals does that.")
    return Section("doubles", "Duplicates", texts, parts)


def quality_section(groups):
    """Faults of the signals by source."""
    counts = {name: Counter(kind for facts in own for kind in facts.warnings) for name, own in groups.items()}
    total = sum(counts.values(), Counter())
    rows = [[kind, f"{n:,}", *(f"{c[kind]:,}" for c in counts.values())] for kind, n in total.most_common()]
    texts = [] if rows else ["Nothing suspicious."]
    parts = [Table(["recordings with", "all", *groups], rows)] if rows else []
    return Section("quality", "Signal quality", texts, parts)


def frequent(values, most=3):
    """'500 (99 %), 1000 (1 %)': the most frequent values and their share, one alone without."""
    counts = Counter(values)
    total = counts.total()
    if len(counts) == 1:
        return next(iter(counts))
    shown = [f"{value} ({100 * n / total:.2g} %)" for value, n in counts.most_common(most)]
    return ", ".join(shown) + (f" and {len(counts) - most} others" if len(counts) > most else "")


def listed(columns, rows):
    """A Table of the first rows; the others are counted."""
    more = [[f"... and {len(rows) - LISTED:,} more", *[""] * (len(columns) - 1)]] if len(rows) > LISTED else []
    return Table(columns, rows[:LISTED] + more, n_text=len(columns))


def statement_lines(folder: str) -> list[str]:
    """Whether PTB-XL's own table of statements, if it lies beside its records, says what the one of data/ does."""
    table = find_table(folder)
    statements = table and table.with_name("scp_statements.csv")
    if not statements or not statements.is_file():
        return []
    return compare_statements(str(statements)) or [
        f"{printable(str(statements))} agrees with data/ptbxl_statements.csv"
    ]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m data.inspect", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="recordings in it, at any depth")
    parser.add_argument("--html", metavar="FILE", help="write the same as one page")
    parser.add_argument("--signals", action="store_true", help="read the samples too: duplicates and quality")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error("--workers must be 1 or more")
    return args


def main(argv=None):
    args = parse_args(argv)
    try:
        records = find_records(args.folder)
        results = examined(records, args.signals, args.workers)
        sections = card(records, results, args.signals)
        faults = sum(1 for item in results if isinstance(item, Fault))
        title = f"Recordings in {printable(str(args.folder))}"
        lead = f"{len(records):,} recordings, {faults:,} unreadable; " + (
            "headers and samples read" if args.signals else "headers read; --signals reads the samples too"
        )
        print(page_text(title, lead, sections))
        print(*statement_lines(args.folder), sep="\n")
        if args.html:
            write_page(args.html, title, lead, sections)
            print(f"\npage: {args.html}")
    except (RecordError, OSError) as error:
        sys.exit(f"data.inspect: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
