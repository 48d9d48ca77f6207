"""Folders of label headers and output files, as the evaluator takes them."""

import numpy as np

from data.labels import load_class_set

CODES = [code for group in load_class_set("cinc2020").members for code in group]


def write(folder, record_id, dx, answers, codes=CODES, prefix="#Dx: "):
    """A label header and an output file: `dx` codes, `answers` {code: score}, positive from one half on."""
    (folder / "labels" / record_id).parent.mkdir(parents=True, exist_ok=True)
    (folder / "outputs" / record_id).parent.mkdir(parents=True, exist_ok=True)
    (folder / "labels" / f"{record_id}.hea").write_text(
        f"{record_id} 12 500 5000\n#Age: 60\n{prefix}{','.join(dx)}\n#Rx: Unknown\n"
    )
    scores = [answers.get(code, 0.1) for code in codes]
    rows = [codes, [int(score >= 0.5) for score in scores], scores]
    (folder / "outputs" / f"{record_id}.csv").write_text(
        "\n".join([f"#{record_id}"] + [",".join(map(str, row)) for row in rows]) + "\n"
    )


def random_folder(folder, n, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        dx = rng.choice(CODES + ["164865005"], rng.integers(1, 4), replace=False)
        write(folder, f"R{i:05d}", dx, dict(zip(CODES, rng.random(27).round(3))) | {code: rng.random() for code in dx})
    return folder / "labels", folder / "outputs"
