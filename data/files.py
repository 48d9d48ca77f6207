"""Opening files that others have put there, and writing files that survive a power cut."""

import contextlib
import errno
import os
import stat

_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a pipe must not wait for its writer


def open_regular(path, flags=os.O_RDONLY):
    """Descriptor of a file to be read; links are followed. An `opener` for the built-in open as well. Raises OSError,
    also if it is no regular file: a pipe would be waited for, a device read without end.
    """
    descriptor = os.open(path, flags | _FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def written(path):
    """A new binary file, flushed to disk when the block ends."""
    with open(path, "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())
