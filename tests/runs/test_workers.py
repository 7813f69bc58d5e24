"""Many samples in flight: results do not depend on the order in which they are prepared."""

import threading
import time

import pytest

from videomind.runs.workers import in_flight


def steps(index: int, model: list[int]):
    """Asks twice for something, as a chain does."""
    first = yield ("first", index)
    model.append(threading.get_ident())
    second = yield ("second", first)
    return first + second


def prepare(wanted):
    kind, number = wanted
    if kind == "first" and number == 3:
        raise ValueError("number 3 is broken")
    time.sleep(0.02 * (number % 3))
    return number * 10 if kind == "first" else number + 1


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_all_end_with_their_own_result(num_threads):
    model: list[int] = []
    ended = dict(
        in_flight(
            iter(range(8)),
            lambda i: steps(i, model),
            prepare,
            num_threads=num_threads,
        )
    )
    broken = ended.pop(3)
    assert isinstance(broken, ValueError) and str(broken) == "number 3 is broken"
    assert ended == {i: 20 * i + 1 for i in range(8) if i != 3}
    assert set(model) == {threading.get_ident()}  # the model runs in one thread


def test_what_ends_without_asking_ends_too():
    def nothing(index):
        return index
        yield

    assert dict(in_flight(iter([1, 2]), nothing, prepare, num_threads=2)) == {1: 1, 2: 2}


def out_of_memory(wanted):
    if wanted == ("first", 3):
        raise MemoryError("number 3")
    return prepare(wanted)


def test_an_error_of_the_machine_stops_the_run_unless_it_is_the_samples_here():
    def run(**also):
        return dict(in_flight(iter(range(8)), lambda i: steps(i, []), out_of_memory, num_threads=2, **also))

    with pytest.raises(MemoryError, match="number 3"):
        run()
    ended = run(also=(MemoryError,))
    assert isinstance(ended.pop(3), MemoryError) and ended == {i: 20 * i + 1 for i in range(8) if i != 3}


def test_whatever_a_generator_raises_ends_it_alone():
    def one(index):
        wanted = yield ("second", index)
        return [5, 6, 7][wanted]  # the third has no place 3

    ended = dict(in_flight(iter(range(3)), one, prepare, num_threads=2))
    assert isinstance(ended.pop(2), IndexError) and ended == {0: 6, 1: 7}


def test_preparing_overlaps_with_the_model():
    """Four samples are prepared at the same time: each waits until the others are at it."""
    together = threading.Barrier(4, timeout=30)

    def slow(wanted):
        together.wait()
        return 1

    def one(index):
        return (yield index)

    assert len(list(in_flight(iter(range(4)), one, slow, num_threads=4))) == 4
