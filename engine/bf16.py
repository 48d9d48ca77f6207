"""Whether a device computes bfloat16 natively: where it does not, it is slower than float32."""

from pathlib import Path

import torch


def gpu_has_bf16() -> bool:
    """Whether the GPU computes bfloat16 natively, as NVIDIA's do from Ampere on. `torch.cuda.is_bf16_supported` by
    itself is true of those before, too, which emulate it.
    """
    return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 natively; elsewhere it is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
