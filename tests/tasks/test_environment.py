"""Numbers that variables of the environment hold: read exactly, or refused by name."""

import pytest

from tasks.environment import SettingError, number


@pytest.mark.parametrize(("text", "value"), [("", 60), (" ", 60), ("5", 5), (" 0.25 ", 0.25), ("1e2", 100), ("0", 0)])
def test_a_number_is_read_and_an_empty_variable_is_the_default(monkeypatch, text, value):
    monkeypatch.setenv("ROBUST_CHECKPOINT_SECONDS", text)
    assert number("ROBUST_CHECKPOINT_SECONDS", 60) == value


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1,5", "0x10"])
def test_what_is_no_number_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv("ROBUST_CHECKPOINT_SECONDS", text)
    with pytest.raises(SettingError, match=r"CHECKPOINT_SECONDS=.*: use a number of at least 0, or leave it out"):
        number("ROBUST_CHECKPOINT_SECONDS", 60)


@pytest.mark.parametrize("text", ["0", "1.5", "two"])
def test_a_whole_number_is_whole_and_not_too_small(monkeypatch, text):
    monkeypatch.setenv("ROBUST_THREADS", text)
    with pytest.raises(SettingError, match="use a whole number of at least 1"):
        number("ROBUST_THREADS", 1, least=1, whole=True)
