"""Train as the PhysioNet/Computing in Cardiology Challenge 2020 did in its final phase.

python train_model.py DATA MODEL

It stands in for the organisers' script of this name, which makes the same call.
"""

import os
import sys

from train_12ECG_classifier import train_12ECG_classifier


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit("name two folders: python train_model.py DATA MODEL")
    data_directory, model_directory = arguments
    os.makedirs(model_directory, exist_ok=True)
    train_12ECG_classifier(data_directory, model_directory)


if __name__ == "__main__":
    main(sys.argv[1:])
