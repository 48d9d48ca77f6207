"""One writer a folder: a lock that the operating system takes back when its holder dies, however it dies."""

import contextlib
import os
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[bool]:
    """Hold the lock of an existing folder; yields whether it was free. Nothing is left behind in the folder, but
    where only files can be locked (NFS) an empty `.lock`. On file systems without locks (some network drives) and
    systems without flock (Windows) it counts as free.
    """
    if fcntl is None:
        yield True
        return
    with contextlib.ExitStack() as opened:
        free = _lock(folder, os.O_RDONLY, opened)
        if free is None:
            free = _lock(os.path.join(folder, LOCK_FILE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, opened)
        yield free is not False


def _lock(path, flags, opened):
    """Whether the lock of a file or folder was free; None if it cannot be locked. It is held until `opened` is
    closed.
    """
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        if flags == os.O_RDONLY:
            raise
        return None
    opened.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
