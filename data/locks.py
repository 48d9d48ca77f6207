"""One writer a folder: a lock that the operating system takes back when its holder dies, however it dies."""
import contextlib
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def locked(folder):
    """Hold the lock of an existing folder; yields whether it was free. Nothing is left behind in the folder. On file systems
    without locks (some network drives) and systems without flock (Windows) it counts as free."""
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:
            free = True
        yield free
    finally:
        os.close(descriptor)
