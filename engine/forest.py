"""Grow a forest on what is measured of recordings: what `train.py --forest N` has beside its network.

Extremely randomised trees (Geurts, Ernst, Wehenkel, Machine Learning 2006), N for each class, from scikit-learn. A few
thousand recordings are enough for them to find which interval, axis or wave decides, where a network must first learn
to measure. docs/results.md has what each of the two is worth, and both together.
"""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import torch
from tqdm import tqdm

from data.covariates import LEAD_SUBSETS
from data.dataset import Dataset, with_numbers
from data.labels import ClassSet
from data.leads import LEADS
from data.measures import N_NUMBERS, recording_numbers
from engine.initial_run import InitialRun
from engine.recordings import TrainValid
from models.forest import Forest

MIN_POSITIVES = 5  # recordings that have a class, or it gets no trees
MAX_RECORDINGS = 20_000  # of which a forest grows: chosen by chance where there are more
LEAF = 3  # recordings at a leaf at least
TRIED = 0.2  # share of the numbers that a node chooses from
SHARE = 0.6  # of the logits of both: docs/results.md has others
MAX_DEPTH = 12  # a tree has less than 2**13 nodes: the steps between them are kept in 16 bits


def forest_of(
    args: Namespace, start: InitialRun | None, data: Dataset, recordings: TrainValid, class_set: ClassSet
) -> tuple[Dataset, Forest | None]:
    """What --forest asks for, or the forest of the run of --init, as far as it answers the same classes; and the
    Dataset, with the numbers on which a forest decides if there is one.
    """
    every = np.concatenate([recordings.valid, recordings.test])
    if args.forest:
        rows = _drawn(recordings.train, args.seed)
        data = with_numbers(data, np.concatenate([rows, every]), args.sample_freq)
        return data, grow(data, rows, len(class_set), args)
    forest = start.forest_for(class_set) if args.init is not None else None
    return (data, None) if forest is None else (with_numbers(data, every, args.sample_freq), forest)


def _drawn(rows: np.ndarray, seed: int) -> np.ndarray:
    """The rows, or MAX_RECORDINGS of them: before they are measured, which takes milliseconds each."""
    if len(rows) <= MAX_RECORDINGS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_RECORDINGS, replace=False))


def grow(data: Dataset, rows: np.ndarray, n_classes: int, args: Namespace) -> Forest | None:
    """Grow a forest; None, and a line that says so, where too few recordings have any of the classes.

    Args:
        data: recordings with their labels and `numbers`, and with subset_covariates if lead_subsets is not 0.
        rows: of those that it grows on.
        n_classes: C, the classes that are answered; further labels are auxiliary.
        args: forest (trees for each class), sample_freq (of the signals, Hz), lead_subsets (share of the weight that
            recordings with few leads get) and seed.
    """
    rows = rows[~np.isnan(data.numbers[rows]).all(1)]
    has = data.targets[rows, :n_classes] > 0.5
    known = data.mask[rows, :n_classes] > 0
    enough = np.minimum((has & known).sum(0), (~has & known).sum(0)) >= MIN_POSITIVES
    answered = np.flatnonzero(enough)
    print(f"{args.forest} trees for each of {len(answered)} classes that {MIN_POSITIVES} recordings or more have")
    if not len(answered):
        return None
    typical = _typical(data.numbers[rows])
    numbers, weights = _examples(data, rows, args)  # (R or (1 + S) R, F)
    numbers = np.where(np.isnan(numbers), typical, numbers)
    copies = len(numbers) // len(rows)
    trees = []
    for column in tqdm(answered, desc="Growing trees", unit="class", leave=False, disable=None):
        use = np.tile(known[:, column], copies)
        trees += _grow_class(numbers[use], np.tile(has[:, column], copies)[use], weights[use], args)
    return _as_forest(trees, answered, n_classes, typical)


def _examples(data, rows, args):
    """Numbers and weights of recordings, and of the same with few leads if these are asked for."""
    numbers = data.numbers[rows]
    if not args.lead_subsets:
        return numbers, np.ones(len(rows))
    few = _with_few_leads(data, rows, args.sample_freq)
    weights = [1 - args.lead_subsets, *[args.lead_subsets / len(few)] * len(few)]
    return np.concatenate([numbers, *few]), np.repeat(weights, len(rows))


def _with_few_leads(data, rows, sample_freq):
    """(S, R, F) numbers of recordings if they had the leads of each of LEAD_SUBSETS only."""
    numbers = np.zeros((len(LEAD_SUBSETS), len(rows), N_NUMBERS), np.float32)
    for number, subset in enumerate(LEAD_SUBSETS):
        kept = np.array([name in subset for name in LEADS])[:, None]  # (12, 1)
        bar = tqdm(rows, desc="Measuring few leads", unit="rec", leave=False, disable=None)
        signals = (data.cache.signal(row) * kept for row in bar)
        numbers[number] = recording_numbers(signals, sample_freq, data.subset_covariates[rows, number])
    return numbers


def _typical(numbers):
    """(R, F) -> (F,): the median of each number, of those that are known; 0 where none is."""
    unknown = np.isnan(numbers)
    return np.nanmedian(np.where(unknown.all(0), 0, numbers), axis=0).astype(np.float32)


def _grow_class(numbers, target, weights, args):
    """Trees of scikit-learn for one class."""
    from sklearn.ensemble import ExtraTreesClassifier

    forest = ExtraTreesClassifier(
        args.forest,
        min_samples_leaf=LEAF,
        max_features=TRIED,
        max_depth=MAX_DEPTH,
        n_jobs=torch.get_num_threads(),
        random_state=args.seed,
    )
    return [tree.tree_ for tree in forest.fit(numbers, target, weights).estimators_]


def _as_forest(trees, answered, n_classes, typical):
    """The Forest of scikit-learn's trees, class after class."""
    n_nodes = sum(tree.node_count for tree in trees)
    depth = max(tree.max_depth for tree in trees)
    forest = Forest(n_classes, len(answered), len(trees) // len(answered), n_nodes, depth, len(typical), SHARE)
    forest.typical.copy_(torch.from_numpy(typical))
    forest.columns.fill_(len(answered))
    forest.columns[answered] = torch.arange(len(answered), dtype=torch.int32)
    roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
    forest.roots.copy_(torch.from_numpy(roots).view(forest.roots.shape))
    for root, tree in zip(roots, trees):
        nodes = slice(root, root + tree.node_count)
        order, steps = _siblings_together(tree)
        leaf = steps == 0
        shares = tree.value[order, 0, 1] / tree.value[order, 0].sum(1)
        forest.numbers[nodes] = torch.from_numpy(np.where(leaf, 0, tree.feature[order]))
        forest.values[nodes] = torch.from_numpy(np.where(leaf, shares, _not_above(tree.threshold[order])))
        forest.steps[nodes] = torch.from_numpy(steps)
    return forest


def _siblings_together(tree):
    """-> order (n,): nodes of a tree such that the two below each are neighbours, the root first; steps (n,): from a
    place in this order to the first of the two, 0 at a leaf.
    """
    order = [0]
    steps = np.zeros(tree.node_count, int)
    for place in range(tree.node_count):
        node = order[place]
        if tree.children_left[node] >= 0:
            steps[place] = len(order) - place
            order += [tree.children_left[node], tree.children_right[node]]
    return np.array(order), steps


def _not_above(limits):
    """float64 limits as float32, rounded down: a float32 is above the one if it is above the other."""
    rounded = limits.astype(np.float32)
    return np.where(rounded > limits, np.nextafter(rounded, np.float32(-np.inf)), rounded)
