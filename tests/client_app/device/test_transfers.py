"""What the log says of a message on its way, with a clock that is told the time."""

from client_app.device.transfers import Progress


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def carried(seconds: list[float], sizes: list[int]) -> list[str]:
    clock = Clock()
    said: list[str] = []
    names = [f"piece-{n}" for n in range(len(sizes))]
    progress = Progress("uploading", "uploaded", names, said.append, clock)
    progress.begin()
    for after, name, size in zip(seconds, names, sizes, strict=True):
        clock.now += after
        progress.moved(name, size)
    return said


def test_a_slow_message_is_told_at_a_pace_and_at_its_end() -> None:
    # 1 MB in 8 s: the first one that is more than 10 s in is the second, 2 of 4 MB.
    assert carried([8.0] * 4, [1_000_000] * 4) == [
        "uploading 2.0 of 4.0 MB, 16 s left",
        "uploaded 4.0 MB in 32 s (125 kB/s)",
    ]


def test_a_quick_one_is_not_spoken_of() -> None:
    assert carried([1.0] * 9, [1_000_000] * 9) == []


def test_what_is_left_is_taken_to_be_as_large_as_the_largest() -> None:
    assert carried([20.0, 20.0, 0.0], [3_100_000, 1_000, 1_000]) == [
        "uploading 3.1 of 9.3 MB, 40 s left",
        "uploading 3.1 of 6.2 MB, 40 s left",
        "uploaded 3.1 MB in 40 s (78 kB/s)",
    ]


def test_a_hundred_pieces_are_twenty_lines_at_most() -> None:
    said = carried([30.0] * 100, [1_000] * 100)
    assert 10 < len(said) <= 20
    assert said[-1].startswith("uploaded 0.1 MB in 3000 s")


def test_what_has_moved_before_or_is_none_of_it_does_not_count() -> None:
    clock = Clock()
    said: list[str] = []
    progress = Progress("downloading", "downloaded", ["a", "b"], said.append, clock)
    clock.now += 1_000  # the app of the run is fetched first
    progress.begin()
    clock.now += 15
    for name in ("other", "a", "a", "b"):
        progress.moved(name, 500_000)
    assert said == [
        "downloading 0.5 of 1.0 MB, 15 s left",
        "downloaded 1.0 MB in 15 s (67 kB/s)",
    ]
