"""Numbers as models see them. Cache, training and inference share these, so a recording is the same everywhere."""
import math

import numpy as np


def to_microvolts(signal):
    """float mV -> int16 microvolts, rounded; beyond +-32.767 mV it is clipped. A microvolt is a fifth of the finest ADC step
    in use (5 uV at 200 adu/mV), and int16 halves the memory."""
    return np.clip(np.rint(signal * 1000), -32767, 32767).astype(np.int16)


def to_millivolts(signal):
    """int16 microvolts -> float32 mV."""
    return signal.astype(np.float32) * np.float32(1e-3)


def demographics(age, sex):
    """(4,) float32: (age - 60) / 20 in years (0 if unknown), 1 if age is known, sex (1 male, -1 female, 0 unknown), 1 if it is known."""
    known_age = not math.isnan(age)
    return np.array([(age - 60) / 20 if known_age else 0, known_age, {"Male": 1, "Female": -1}.get(sex, 0), sex in ("Male", "Female")], np.float32)
