"""Memory that tensors leave is kept for those to come."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import numpy as np
from minigpt5.utils.memory import keep_freed_memory

def work():
    np.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**24)
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


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_large_arrays_that_are_freed_cost_no_pages_again():
    def faults(*arguments):
        told = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
        return int(told.stdout)

    assert faults("keep") < 100 < faults()
    assert faults("keep", "thread") < 100 < faults("thread")
