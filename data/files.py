"""Finding and opening files that others have put there, and writing files that survive a power cut."""

import contextlib
import errno
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

MAX_FOLDERS = 100_000  # of a walk: folders that link to each other may have endlessly many paths
_POINTERS = {
    b"version https://git-lfs.github.com/": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get"),
}
_FLAGS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # opening a pipe must not wait for its writer


class FolderError(ValueError):
    """A folder that cannot be walked; the message names it and the fault."""


class Listing(NamedTuple):
    """One folder of a walk, and the files in it."""

    path: str
    inside: str  # the folder relative to the one walked, with forward slashes; '' for that folder itself
    names: list[str]  # of its files, in no order, without those that begin with a dot; broken links are among them
    fault: str = ""  # why the folder could not be listed


def walk_files(
    folder: str | os.PathLike, is_listed: Callable[[str, list[str]], bool] | None = None
) -> Iterator[Listing]:
    """Yield a Listing of `folder` and of every folder below it; the one folder walk of this repository.

    Names that begin with a dot are skipped. Linked folders are followed, except into one that contains them. A folder
    that cannot be listed is yielded with a fault. Raises FolderError where there are more than MAX_FOLDERS.

    Args:
        folder: where to begin.
        is_listed: whether a folder, given its path and the names of its files, has a list of all that lies below it:
            its folders are then left alone.
    """
    pending = [(os.fspath(folder), "", ())]
    n_folders = 0
    while pending:
        path, inside, above = pending.pop()
        n_folders += 1
        if n_folders > MAX_FOLDERS:
            raise FolderError(f"{folder}: more than {MAX_FOLDERS} folders in it: do links lead from one to another?")
        try:
            identity = _identity(path)
            if identity in above:
                continue
            names, subfolders = _list_folder(path)
        except OSError as error:
            yield Listing(path, inside, [], f"folder cannot be listed: {error.strerror}")
            continue
        if is_listed is not None and is_listed(path, names):
            subfolders = []
        prefix = f"{inside}/" if inside else ""
        pending += [(os.path.join(path, name), prefix + name, (*above, identity)) for name in subfolders]
        yield Listing(path, inside, names)


def _list_folder(path):
    """-> names of its files, names of its subfolders."""
    names = []
    subfolders = []
    with os.scandir(path) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
                subfolders.append(name)
            else:
                names.append(name)
    return names, subfolders


def _identity(path):
    info = os.stat(path)
    return info.st_dev, info.st_ino


def open_regular(path: str | os.PathLike, flags: int = os.O_RDONLY) -> int:
    """Descriptor of a file to be read; links are followed. An `opener` for the built-in open as well. Raises OSError,
    also if it is not a regular file: a pipe would be waited for, a device read without end.
    """
    try:
        descriptor = os.open(path, flags | _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device that is not there
            raise _not_regular(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_regular(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _not_regular(path):
    return OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))


def link_note(path: str | os.PathLike) -> str:
    """What to add to a message about a file: where it leads if it is a link, else ''."""
    return f" ({os.fspath(path)} is a link to {os.path.realpath(path)})" if os.path.islink(path) else ""


def pointer_note(start: bytes) -> str:
    """What is wrong with a file that begins with these bytes if it only stands for another that was not downloaded."""
    if not start.startswith(tuple(_POINTERS)):
        return ""
    kind, command = next(_POINTERS[signature] for signature in _POINTERS if start.startswith(signature))
    return f"is a pointer of {kind}, its content was not downloaded: run {command}"


@contextlib.contextmanager
def written(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A new binary file, flushed to disk when the block ends."""
    with open(path, "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write a file under a temporary name in its folder, flush it to disk and rename it: at any moment `path` is the
    old file or the new one as a whole. A link in its place is replaced, not followed. Raises OSError; nothing is left.
    """
    folder, name = os.path.split(os.fspath(path))
    # The name may be as long as names can be, so that the temporary one is derived from it by a checksum.
    partial = os.path.join(folder, f".{zlib.crc32(os.fsencode(name)):08x}.partial")
    try:
        with open(partial, "wb", opener=_without_links) as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        error.filename = os.fspath(path)  # nobody knows the temporary name
        error.filename2 = None
        raise


def _without_links(path, flags):
    """Opener of a file to be written that does not follow a link lying in its place."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
