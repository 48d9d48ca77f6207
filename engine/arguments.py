"""Types of the scripts' arguments, for argparse."""

import argparse
import os
from pathlib import Path


def path_argument(text: str) -> Path:
    """A path. `~` is the home folder, which a shell sees to only where a word begins with it: it leaves
    `--folder=~/run` as it is. An empty path (of a shell variable that is not set, say) is refused: to pathlib it is the
    current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(os.path.expanduser(text))
