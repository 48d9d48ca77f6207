"""How the scripts end early: one line on standard error and an exit status instead of a traceback."""

import contextlib
import io
import signal
import sys
import threading
from collections.abc import Iterator

from data.cache import CacheError
from data.records import RecordError
from engine.run_folder import RunError

INTERRUPTED, TERMINATED = 130, 143  # exit statuses, as shells count signals: 128 + the signal's number


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt it passes every `except Exception` and still lets files and locks be
    cleared away.
    """


def _terminate(number, frame):
    raise Terminated


@contextlib.contextmanager
def clean_exit(name: str, advice: str) -> Iterator[None]:
    """Around a script's main: input that cannot be used or a full disk end it with status 1, Ctrl-C with 130, SIGTERM
    (what clusters send before they kill) with 143. `advice` tells how to go on after an interruption.
    """
    _print_any_name()
    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
    before = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        yield
    except (RunError, RecordError, CacheError, ValueError, OSError) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        _say(f"{name}: interrupted; {advice}")
        sys.exit(INTERRUPTED)
    except Terminated:
        _say(f"{name}: terminated; {advice}")
        sys.exit(TERMINATED)
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)


def _print_any_name() -> None:
    """A file's name may hold what the output's encoding lacks: print it as escapes instead of ending the script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)
