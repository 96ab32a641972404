import subprocess
import sys

SCRIPT = """
import resource, sys
import torch
from healing_mnist.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(20):  # blocks of 36 MB, until the heap has room for one at the place it is wanted
    torch.ones(9_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(9_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_kept_memory_is_used_again_without_page_faults():
    assert faults("keep") < faults("give back") / 10
