"""Many runs of train.py: ``python sweep.py sweep=loss_weight``, or ``python sweep.py summarize=FOLDER``."""

import sys
from pathlib import Path

from healing_mnist.sweeps.pool import PRELOAD, warm_up


def main() -> None:
    arguments = sys.argv[1:]
    asked = [argument.removeprefix("summarize=") for argument in arguments if argument.startswith("summarize=")]
    if not asked and not any(argument.startswith("-") for argument in arguments):  # no --help, no --cfg
        sys.argv.append("--multirun")
        warm_up(PRELOAD)  # torch and lightning are imported beside what follows
    from healing_mnist import cli
    from train import train

    if not asked:
        cli.main(train, "train")
        return
    from healing_mnist.sweeps.summary import summarize

    cli.start_logging()
    cli.guarded(lambda: summarize(Path(asked[0])))


if __name__ == "__main__":
    main()
