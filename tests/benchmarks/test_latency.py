"""The harness, not the speed."""

from benchmarks.latency import measure


def test_rounds_are_interleaved_and_summarized() -> None:
    order: list[str] = []
    runners = {name: (lambda name=name: order.append(name)) for name in ("a", "b")}
    rows = measure(runners, rounds=5)
    assert order[:4] == ["a", "b", "a", "b"]
    assert [row["name"] for row in rows] == ["a", "b"]
    for row in rows:
        assert 0 <= row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
