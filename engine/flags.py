"""The flags of a training script once they are parsed: what they make of the signal, the network and config.json."""

from __future__ import annotations

from argparse import Namespace

from data.covariates import N_COVARIATES
from data.headers import printable
from data.preprocess import SignalConfig
from models import ENCODERS, HEAD

# How and where a run is computed; all others decide its result.
NOT_PART_OF_A_RUN = (
    "resume",
    "overwrite",
    "workers",
    "cache",
    "cuda",
    "folder",
    "strict",
    "compile",
    "plots",
    "tensorboard",
    "config",
)


class Flags(Namespace):
    """Parsed flags. `explicit` holds the names of those that were chosen, on the command line or by the run that is
    resumed, and `split_by` the Split that they ask for.
    """

    def settings(self) -> dict:
        """The flags that decide a run's result, as plain values: for config.json, and to compare when resuming."""
        hidden = (*NOT_PART_OF_A_RUN, "explicit", "split_by")
        kept = {name: value for name, value in vars(self).items() if name not in hidden}
        # A folder's name may hold what is not UTF-8, which JSON cannot.
        return {name: printable(value) if isinstance(value, str) else value for name, value in kept.items()}

    def signal_config(self) -> SignalConfig:
        """What the model's input is."""
        return SignalConfig(sample_freq=self.sample_freq, leads=tuple(self.leads))

    def encoder_config(self) -> dict:
        """The encoder that --encoder and the flags of its sizes describe, as models.build_encoder takes it."""
        sizes = self._sizes(ENCODERS[self.encoder][1])
        return {"encoder": self.encoder, **sizes, "n_leads": len(self.leads)}

    def model_config(self, n_classes: int) -> dict:
        """Encoder and classification head, as models.build_model takes them."""
        implied = {
            "n_covariates": N_COVARIATES if self.covariates else 0,
            "lead_flags": self.lead_subsets > 0,
            "n_classes": n_classes,
        }
        return self.encoder_config() | self._sizes(HEAD) | implied

    def _sizes(self, defaults: dict) -> dict:
        """`defaults` with what the flags of sizes say instead."""
        given = {name: getattr(self, name, None) for name in defaults}
        return {name: default if given[name] is None else given[name] for name, default in defaults.items()}
