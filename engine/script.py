"""How the scripts end early: one line on standard error and an exit status instead of a traceback."""

import contextlib
import io
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator

import torch

from data.cache import CacheError
from data.records import RecordError
from engine.run_folder import RunError

INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as shells count signals: 128 + the signal's number
# What a plain RuntimeError says where memory is full: CUDA and its libraries beside PyTorch's allocator (and PyTorch
# itself before it had an error of its own), and PyTorch on the processor.
GPU_IS_FULL = ("CUDA out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")
MACHINE_IS_FULL = ("DefaultCPUAllocator",)
MAX_DETAILS = 300  # characters of what the error itself says
IN_TRAINING = (
    "begin anew with a smaller --batch_size (or with --bf16, where it is off), or, if other programs hold it, end them "
    "and go on with --resume"
)


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it passes every `except Exception` and still lets files and locks be
    cleared away.
    """


def _terminate(number, frame):
    raise Terminated


@contextlib.contextmanager
def clean_exit(
    name: str, advice: str, if_full: str = "end other programs that hold it, or use a machine with more of it"
) -> Iterator[None]:
    """Around a script's main: input that cannot be used, a full disk or full memory end it with status 1, Ctrl-C with
    130, SIGTERM (what clusters send before they kill) with 143.

    Args:
        name: of the script.
        advice: how to go on after an interruption.
        if_full: what to do where the memory, of the machine or of its GPU, does not suffice.
    """
    _print_any_name()
    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
    before = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        yield
    except (RunError, RecordError, CacheError, ValueError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except (RuntimeError, MemoryError) as error:
        memory = full_memory(error)
        if memory is None:
            raise
        details = textwrap.shorten(str(error), MAX_DETAILS, placeholder=" ...")
        sys.exit(f"{name}: {memory} is full: {if_full} ({details or 'MemoryError'})")
    except KeyboardInterrupt:
        _say(f"{name}: interrupted; {advice}")
        sys.exit(INTERRUPTED)
    except Terminated:
        _say(f"{name}: terminated; {advice}")
        sys.exit(TERMINATED)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def full_memory(error: RuntimeError | MemoryError) -> str | None:
    """Which memory an error says is full; None if it says something else."""
    if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in GPU_IS_FULL):
        return "the GPU's memory"
    if isinstance(error, MemoryError) or any(text in str(error) for text in MACHINE_IS_FULL):
        return "the memory"
    return None


def _print_any_name() -> None:
    """A file's name may hold what the output's encoding lacks: print it as escapes instead of ending the script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)
