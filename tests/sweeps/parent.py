"""A process with two jobs that run for long; the tests kill it or interrupt it: ``python parent.py FOLDER``."""

import signal
import sys
from functools import partial
from pathlib import Path

import jobs

from healing_mnist.sweeps.pool import Job, Pool
from healing_mnist.sweeps.slots import Slot

if __name__ == "__main__":
    # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(sys.argv[1])
    pool = Pool([Slot("", (0,)), Slot("", (0,))])
    for _ in pool.run(
        Job(str(i), partial(jobs.with_child, folder / f"pids-{i}"), folder / f"{i}.log") for i in range(4)
    ):
        pass
