"""Train as the PhysioNet/Computing in Cardiology Challenge 2021 did.

python train_model.py DATA MODEL

It stands in for the organisers' script of this name, which makes the same call.
"""

import sys

from team_code import training_code


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit("name two folders: python train_model.py DATA MODEL")
    data_directory, model_directory = arguments
    training_code(data_directory, model_directory)


if __name__ == "__main__":
    main(sys.argv[1:])
