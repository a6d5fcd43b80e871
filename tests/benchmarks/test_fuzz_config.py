"""A short form of the fuzzing: no configuration, however odd, gives a traceback or hangs."""

from reliability.fuzz_config import fuzz


def test_odd_configurations_are_taken_or_refused() -> None:
    result = fuzz(400, seed=1)
    assert result["failures"] == []
    assert result["tracebacks"] == result["hangs"] == result["long messages"] == 0
    assert result["taken"] > 20  # it is not all nonsense
    assert result["refused"] > 200
