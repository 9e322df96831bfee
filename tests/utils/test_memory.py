"""Memory that tensors leave is kept for those to come."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import numpy as np
from minigpt5.utils.memory import keep_freed_memory

def work():
    np.ones(2**22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**22)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if "keep" in sys.argv:
    keep_freed_memory()
if "thread" in sys.argv:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
else:
    work()
"""

LOADING = """
import sys
import torch
from minigpt5.utils.memory import keep_freed_memory

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

keep_freed_memory()
before, weights = resident(), []
for _ in range(8):
    whole = torch.ones(4096, 4096)
    weights.append((whole.bfloat16(), torch.nn.Linear(4, 4)))
    del whole
print((resident() - before) / sum(weight.nbytes for weight, _ in weights))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_arrays_that_are_freed_cost_no_pages_again():
    def faults(*arguments):
        told = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
        return int(told.stdout)

    assert faults("keep") < 100 < faults()
    assert faults("keep", "thread") < 100 < faults("thread")


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_weights_that_are_converted_leave_no_room_of_their_size():
    told = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True, check=True)
    assert float(told.stdout) < 1.2
