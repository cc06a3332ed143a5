"""A signal is one exception, and says what the command ends with."""

import signal

import pytest

from server_app.launcher.signals import Interrupted, Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_what_a_library_makes_of_a_signal_is_undone(
    number: signal.Signals, code: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, Signals() as signals:
        signals.arm()
        try:
            signal.raise_signal(number)
        except Interrupted:
            raise KeyboardInterrupt from None  # as Ray does
    assert caught.value.code == code
    assert signal.getsignal(number) == before


def test_what_is_no_signal_stays_what_it_is() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, Signals() as signals:
        signals.arm()
        raise KeyboardInterrupt
    assert caught.type is KeyboardInterrupt


def test_a_signal_before_it_is_armed_waits() -> None:
    passed = []
    with pytest.raises(Interrupted) as caught, Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        passed.append("undisturbed")
        signals.arm()
        passed.append("never")
    assert passed == ["undisturbed"]
    assert caught.value.code == 143  # of the first
