"""Decision trees on what is measured of a whole recording, as tensors: saved, loaded and moved with a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SURE = 0.001  # no forest is surer than this or 1 - this: what stands at its leaves are shares of few recordings


class Forest(nn.Module):
    """T trees for each of C' of the C classes. Every node but a leaf asks whether a number is above a limit; the answer
    is the mean over a class's trees of what stands at the leaves. `engine.forest` grows them. Seven bytes a node.

    Args:
        n_classes: C, of the model.
        n_answered: C', classes that have trees.
        n_trees: T.
        n_nodes: of all trees together.
        tree_depth: questions from a root to the deepest leaf.
        n_numbers: F, of a recording.
        forest_share: weight of the forest's logit in the answer, that of the network is 1 - forest_share.
    """

    def __init__(
        self,
        n_classes: int,
        n_answered: int,
        n_trees: int,
        n_nodes: int,
        tree_depth: int,
        n_numbers: int,
        forest_share: float,
    ):
        super().__init__()
        self.tree_depth = tree_depth
        self.forest_share = forest_share
        self.register_buffer("typical", torch.zeros(n_numbers))  # stands for a number that is not known
        self.register_buffer("columns", torch.zeros(n_classes, dtype=torch.int32))  # among the C' answers; C': no trees
        self.register_buffer("roots", torch.zeros(n_answered, n_trees, dtype=torch.int32))
        dtype = torch.uint8 if n_numbers <= 256 else torch.int16
        self.register_buffer("numbers", torch.zeros(n_nodes, dtype=dtype))  # which one a node looks at
        self.register_buffer("values", torch.zeros(n_nodes))  # its limit; at a leaf, the share that has the class
        self.register_buffer("steps", torch.zeros(n_nodes, dtype=torch.int16))  # to the next node; 0 at a leaf

    @property
    def sizes(self) -> dict[str, float]:
        """What a model's config says of it."""
        return {
            "n_answered": self.roots.shape[0],
            "n_trees": self.roots.shape[1],
            "n_nodes": len(self.steps),
            "tree_depth": self.tree_depth,
            "n_numbers": len(self.typical),
            "forest_share": self.forest_share,
        }

    def check(self) -> None:
        """Refuse, with a ValueError, trees that lead out of the tensors: they may come from a stranger."""
        n_nodes = len(self.steps)
        furthest = torch.arange(n_nodes) + self.steps + (self.steps != 0)
        places = (
            ("columns", self.columns, len(self.roots) + 1),
            ("roots", self.roots, n_nodes),
            ("numbers", self.numbers, len(self.typical)),
            ("steps", torch.where(self.steps < 0, -1, furthest), n_nodes),
        )
        for name, values, end in places:
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < end:
                raise ValueError(f"forest.{name} leads beyond 0 to {end - 1}")

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of recordings.

        Args:
            x: (R, F) numbers, NaN where unknown.

        Returns:
            (R, C), NaN for classes without trees, and for recordings of which all is unknown.
        """
        n_recordings = x.shape[0]
        known = torch.where(torch.isnan(x), self.typical, x).flatten()  # (R F,)
        begins = torch.arange(n_recordings, dtype=torch.int32, device=x.device) * x.shape[1]  # (R,) in `known`
        begins = begins[:, None].expand(-1, self.roots.numel()).flatten()  # (R C' T,)
        node = self.roots.flatten().expand(n_recordings, -1).flatten()  # (R C' T,)
        for _ in range(self.tree_depth):
            number = known.index_select(0, begins + self.numbers.index_select(0, node))
            step = self.steps.index_select(0, node)
            above = (number > self.values.index_select(0, node)) & (step > 0)
            node = node + step + above  # of the two below, the first, or if above the second
        answers = self.values.index_select(0, node).reshape(-1, *self.roots.shape).mean(2)  # (R, C')
        answers = torch.cat([answers.clamp(SURE, 1 - SURE), torch.full_like(x[:, :1], torch.nan)], 1)  # (R, C' + 1)
        nothing = torch.isnan(x).all(1, keepdim=True)  # (R, 1)
        return answers.index_select(1, self.columns).masked_fill(nothing, torch.nan)

    def join(self, network: Tensor, answers: Tensor) -> Tensor:
        """Probabilities (R, C) of a network with those of `forward`: the weighted mean of their logits, or the
        network's where the forest has none.
        """
        logits = torch.lerp(torch.logit(network, eps=1e-6), torch.logit(answers), self.forest_share)
        return torch.where(torch.isnan(answers), network, torch.sigmoid(logits))
