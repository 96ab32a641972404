"""Many runs of train.py: ``python sweep.py sweep=loss_weight``, or ``python sweep.py summarize=FOLDER``."""

import sys
from pathlib import Path

from healing_mnist import cli
from train import train


def main() -> None:
    arguments = sys.argv[1:]
    asked = [argument.removeprefix("summarize=") for argument in arguments if argument.startswith("summarize=")]
    if asked:
        from healing_mnist.sweeps.summary import summarize

        cli.start_logging()
        cli.guarded(lambda: summarize(Path(asked[0])))
        return
    if not any(argument.startswith("-") for argument in arguments):  # --help, --cfg
        sys.argv.append("--multirun")
    cli.main(train, "train")


if __name__ == "__main__":
    main()
