"""How the C library hands out memory while training."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # names and numbers of glibc's malloc.h
KEPT = 2**31 - 1  # mallopt takes an int


def keep_freed_memory():
    """Let the process keep the memory that it frees, for its next step. -> whether the C library could be asked to.

    glibc gives every freed block above 32 MiB back to the system and gets it anew, page by page and zeroed, in the
    next step: with large activations that costs a tenth to a fifth of the training. Peak memory does not change, but
    memory is returned only at the process's end. Other C libraries (macOS, Windows, musl) are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(
        mallopt(option, value) == 1 for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, 2**26))
    )
