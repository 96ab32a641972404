"""Measure finished runs again: ``python evaluate.py run=FOLDER [data.source=mnist] [analysis=robustness] ...``.

``run=[a,b,c]`` measures several and draws their reconstructions side by side. Overrides of data, analysis, trainer and
logger apply to the settings each run was trained with. Results lie in ``FOLDER/evaluations/``.
"""

import sys

from healing_mnist import cli
from healing_mnist.imports import importing


def evaluate(arguments: list[str]) -> None:
    runs_given, overrides = cli.split_runs(arguments)
    cli.start_logging()
    with importing():
        from healing_mnist.evaluation import evaluate_all

    evaluate_all(runs_given, overrides)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        cli.guarded(lambda: evaluate(sys.argv[1:]))
