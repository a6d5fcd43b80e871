"""Freed memory is kept for the next step, tiny numbers are 0 and in the end no longer; threads have cores."""

import os
import subprocess
import sys

import pytest
import torch

from latentseg.engine import full_speed, use_threads

FAULTS = """
import resource, torch
from latentseg.engine import full_speed

def least_faults():  # pages that the system has to bring for a map of 128 MB that has been there before
    found = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**25)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)

first = least_faults()
with full_speed():
    kept = least_faults()
print(first, kept)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone does so")
def test_pages_come_once() -> None:
    """In a process of its own: what others have left in the heap counts."""
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    first, kept = map(int, said.split())
    assert first > 1000
    assert kept < 100


def test_tiny_numbers_are_zero_for_a_while() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot")
    tiny = torch.tensor([1e-30])
    with full_speed():
        assert float(tiny * 1e-10) == 0
    assert float(tiny * 1e-10) > 0


def test_other_systems_do_as_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with full_speed():
        assert int(torch.ones(4).sum()) == 4


def test_more_threads_than_cores_are_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    try:
        for asked, used in ((1, 1), (2, 2), (None, 2), (1024, 2)):
            assert not capsys.readouterr().err
            use_threads(asked)
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
    assert "threads=1024, but there are 2 cores: 2 threads are used" in capsys.readouterr().err
