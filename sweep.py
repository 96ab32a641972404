"""Many runs of train.py: ``python sweep.py sweep=loss_weight``, or ``python sweep.py summarize=FOLDER``.

``python sweep.py study=reports`` runs many sweeps and writes one document of what they found (conf/study):

    only=PART,PART     these parts alone
    small=true         on the bundled digits, little of everything, into outputs/small
    run=false          only write the document, from the runs that are there
    mnist=FOLDER cifar10=FOLDER   files that are on this machine already
    KEY=VALUE          any other setting, for every sweep
"""

import sys
from pathlib import Path

from healing_mnist.checks import refuse
from healing_mnist.sweeps.pool import PRELOAD, warm_up


def main() -> None:
    arguments = sys.argv[1:]
    asked = dict(argument.split("=", 1) for argument in arguments if argument.startswith(("summarize=", "study=")))
    if {"-h", "--help"} & set(arguments):
        if asked:
            print(__doc__)
            return
        if not any(argument.startswith("sweep=") for argument in arguments):
            sys.argv.append("sweep=base")  # whose settings are those of every sweep
    if not asked and not any(argument.startswith("-") for argument in arguments):  # no --help, no --cfg
        sys.argv.append("--multirun")
        warm_up(PRELOAD)  # torch and lightning are imported beside what follows
    from healing_mnist import cli

    if len(asked) > 1:
        cli.guarded(lambda: refuse(["summarize= and study=: one of them"], "in the command"))
    if not asked:
        from train import train

        cli.main(train, "train")
        return
    from healing_mnist.sweeps import study, summary

    cli.start_logging()
    study.end_children_too()
    if "study" in asked:
        cli.guarded(lambda: study.run(arguments))
    else:
        others = [argument for argument in arguments if not argument.startswith("summarize=")]
        cli.guarded(lambda: refuse([f"{word}: summarize= takes nothing else" for word in others], "in the command"))
        cli.guarded(lambda: summary.summarize(Path(asked["summarize"])))


if __name__ == "__main__":
    main()
