"""Networks: an encoder (signal -> features over time) and a head (features -> answers), built from a plain dict.

Every encoder is called as `encoder(x, lengths=None)` with x (B, n_leads, L) in mV and lengths (B,), the samples of each
window before its zero padding, and has `out_channels` (D) and `stride` (samples a frame): it returns (B, D, T').
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.causal_resnet import CausalResNet
from models.forest import Forest
from models.heads import ClassificationHead, encode, pool_over_time
from models.resnet import ResNet1d, XResNet1d
from models.transformer import Transformer

# {name: (class, its sizes and their defaults)}: flags of the training scripts and checks of a config follow from it.
ENCODERS = {
    "xresnet": (
        XResNet1d,
        {
            "n_leads": 12,
            "stem": 32,
            "widths": [64, 96, 128, 192],
            "depths": [1, 1, 1, 1],
            "kernel": 5,
            "first_stride": 1,
            "dropout": 0.1,
        },
    ),
    "resnet": (
        ResNet1d,
        {
            "n_leads": 12,
            "filters": [64, 128, 196, 256, 320],
            "lengths": [4096, 1024, 256, 64, 16],
            "kernel": 17,
            "dropout": 0.5,
        },
    ),
    "transformer": (
        Transformer,
        {"n_leads": 12, "patch": 8, "width": 160, "depth": 4, "n_heads": 5, "dropout": 0.1, "bidirectional": False},
    ),
    "causal_resnet": (
        CausalResNet,
        {"n_leads": 12, "stem": 32, "widths": [48, 96, 160], "depths": [1, 2, 3], "kernel": 5, "dropout": 0.1},
    ),
}
CAUSAL_ENCODERS = ("transformer", "causal_resnet")  # see no sample after the frame they describe
HEAD = {"head_dropout": 0.3, "n_covariates": 23, "lead_flags": False, "n_classes": 24}
# Sizes of a Forest beside the head; no trees, no forest.
FOREST = {"n_answered": 0, "n_trees": 0, "n_nodes": 0, "tree_depth": 0, "n_numbers": 0, "forest_share": 0.5}
DEFAULT_MODEL = {"encoder": "xresnet", **ENCODERS["xresnet"][1], **HEAD}


class ECGModel(nn.Module):
    """An encoder and a head: pre-training hands over the one and leaves the other behind.

    With `lead_flags` the head is also told which leads are missing (zero throughout the window): n_leads further
    covariates, -1 where missing and 0 where there. A `forest`, where there is one, answers for whole recordings:
    `engine.windows.predict` joins its answers with the mean over windows.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, lead_flags: bool = False, forest: Forest | None = None):
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.lead_flags = lead_flags
        self.forest = forest

    def forward(self, x: Tensor, lengths: Tensor | None = None, covariates: Tensor | None = None) -> Tensor:
        """Logits of a batch of windows.

        Args:
            x: (B, n_leads, L) mV.
            lengths: (B,) samples before the zero padding, or None (no padding).
            covariates: (B, n_covariates), what is known of the whole recording (age, sex, rhythm), or None.

        Returns:
            (B, n_classes).
        """
        features, frame_lengths = encode(self.encoder, x, lengths)
        if self.lead_flags:
            covariates = self._with_lead_flags(x, covariates)
        return self.head(features, frame_lengths, covariates)

    @property
    def forest_sizes(self) -> dict[str, float]:
        """What a model's config says of the forest; nothing where there is none."""
        return {} if self.forest is None else self.forest.sizes

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head's linear layer sees of a batch of windows, covariates aside: the mean and the maximum of the
        encoder's features over time. x (B, n_leads, L), lengths (B,) or None -> (B, 2 D).
        """
        return pool_over_time(*encode(self.encoder, x, lengths))

    def _with_lead_flags(self, x: Tensor, covariates: Tensor | None) -> Tensor:
        missing = -(x == 0).all(2).to(x.dtype)  # (B, n_leads)
        n_given = self.head.n_covariates - x.shape[1]  # 0: the head asks for the flags alone
        given = x.new_zeros(len(x), n_given) if covariates is None else covariates[:, :n_given]
        return torch.cat([given, missing], 1)  # (B, n_covariates + n_leads)


def encoder_class(config: dict) -> tuple[type[nn.Module], dict]:
    """The encoder that config names and its defaults; ValueError for an unknown encoder or key."""
    name = config.get("encoder", DEFAULT_MODEL["encoder"])
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {name!r}; known: {', '.join(ENCODERS)}")
    unknown = set(config) - set(ENCODERS[name][1]) - set(HEAD) - set(FOREST) - {"encoder"}
    if unknown:
        raise ValueError(f"unknown keys for encoder {name!r}: {', '.join(sorted(unknown))}")
    return ENCODERS[name]


def build_encoder(config: dict) -> nn.Module:
    """The encoder of a model config (plain ints, floats, strings, lists); missing sizes take their defaults."""
    build, defaults = encoder_class(config)
    return build(**{key: config.get(key, value) for key, value in defaults.items()})


def build_model(config: dict) -> ECGModel:
    """ECGModel of a model config; ValueError names unknown encoders and keys."""
    encoder = build_encoder(config)
    sizes = {key: config.get(key, value) for key, value in HEAD.items()}
    n_covariates = sizes["n_covariates"]
    if sizes["lead_flags"]:
        n_covariates += config.get("n_leads", 12)
    head = ClassificationHead(
        encoder.out_channels, sizes["n_classes"], dropout=sizes["head_dropout"], n_covariates=n_covariates
    )
    return ECGModel(encoder, head, sizes["lead_flags"], _build_forest(config, sizes["n_classes"]))


def _build_forest(config, n_classes):
    sizes = {key: config.get(key, value) for key, value in FOREST.items()}
    return Forest(n_classes, **sizes) if sizes["n_trees"] else None
