"""What is said of a workflow, on a terminal and elsewhere."""

import pytest

from videomind.quickstart.screen import Screen, in_words, percent_of


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [100.0]
    monkeypatch.setattr("videomind.quickstart.screen.time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_each_step_is_one_line(clock):
    said: list[str] = []
    screen = Screen(say=said.append)
    screen.begin([30, 60])
    screen.step("Rendering", 30)
    screen.progress(40)
    screen.end()
    screen.skip("Training")
    assert said == [
        "About 2 minutes on this machine.",
        "[   0 s] Rendering (about 30 s)",
        "[   0 s] Training: done already",
    ]


def test_a_terminals_line_tells_how_far_it_is_and_what_is_left(clock):
    said, lines = [], []
    screen = Screen(say=said.append, rewrite=lines.append)
    screen.begin([100, 300])
    screen.step("Rendering", 100)
    clock[0] += 50
    screen.progress(45)
    assert lines[-1] == "[  50 s] Rendering: 45 %, 50 s; all done in 6 minutes"
    clock[0] += 150
    screen.end()
    assert lines[-1] == "" and said[-1] == "[ 200 s] Rendering: 200 s"
    screen.step("Training", 300)
    screen.progress(None)  # the machine has shown to be half as fast as was expected
    assert lines[-1] == "[ 200 s] Training: 0 s; all done in 10 minutes"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (8.4, "8 s"), (44, "40 s"), (89, "90 s"), (91, "2 minutes"), (400, "7 minutes")],
)
def test_a_time_in_words(seconds, words):
    assert in_words(seconds) == words


def test_the_last_progress_bar_of_a_log_counts(tmp_path):
    log = tmp_path / "a.log"
    assert percent_of(log) is None
    log.write_text("no bar")
    assert percent_of(log) is None
    log.write_text(
        "Loading: 100%|####| 9/9" + "\r".join(f"train: {i:3d}%|##  | {i}" for i in range(900))[:3000]
    )
    assert percent_of(log) == int(log.read_text().rsplit("%|", 1)[0][-3:])
