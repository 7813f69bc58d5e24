"""Many samples in flight: results do not depend on the order in which they are prepared.

Covers `runs/together.py`.
"""

import json
import subprocess
import sys
import threading

import pytest
from helpers.runs import environment

from videomind.runs.workers import ResultFile, in_flight


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
    return number * 10 if kind == "first" else number + 1


def overtaking():
    """Prepares as `prepare` does, but an even number after the odd one behind it."""
    tried = [threading.Event() for _ in range(8)]

    def prepare_late(wanted):
        kind, number = wanted
        if kind == "second":
            return prepare(wanted)
        assert number % 2 or tried[number + 1].wait(timeout=60), f"{number} is prepared alone"
        try:
            return prepare(wanted)
        finally:
            tried[number].set()

    return prepare_late


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_all_end_with_their_own_result(num_threads):
    model: list[int] = []
    ended = dict(
        in_flight(
            iter(range(8)),
            lambda i: steps(i, model),
            overtaking() if num_threads > 1 else prepare,
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


RECORDS = [{"text": f"a{mark}é🎬", "n": i} for i, mark in enumerate("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r")]


def test_a_run_that_was_cut_at_any_byte_goes_on_to_the_same_result(tmp_path):
    """Whatever ends a line elsewhere stands in the texts, and characters of several bytes."""
    whole = ResultFile(tmp_path / "whole", {})
    for index, row in enumerate(RECORDS):
        whole.append(index, row)
    expected = whole.merge(len(RECORDS)).read_bytes()
    written = (tmp_path / "whole/parts/part_0.jsonl").read_bytes()
    results = ResultFile(tmp_path / "cut", {})
    part = tmp_path / "cut/parts/part_0.jsonl"
    part.parent.mkdir(parents=True)
    for length in range(len(written) + 1):
        part.write_bytes(written[:length])
        done = results.done()
        ends = [i for i, byte in enumerate(written) if byte == ord("\n")]
        assert len(done) == sum(end <= length for end in ends)
        for index in range(len(RECORDS)):
            if index not in done:
                results.append(index, RECORDS[index])
        assert results.merge(len(RECORDS)).read_bytes() == expected


def test_what_failed_counts_only_until_it_was_done_again(tmp_path):
    results = ResultFile(tmp_path, {})
    results.append(0, {"error": "broken"})
    assert results.done() == {0: {"error": "broken"}} and results.done(failed=False) == {}
    results.append(0, {"text": "\u2028"})
    results.append(0, {"error": "broken again"})
    assert results.done() == results.done(failed=False) == {0: {"text": "\u2028"}}
    with pytest.raises(RuntimeError, match="1 of 2 samples have no result"):
        results.merge(2)


@pytest.mark.parametrize("line", ["[1]", "3", '{"index": 1}', '{"record": {}, "index": 0, "more": 1}'])
def test_a_whole_line_of_something_else_is_named(tmp_path, line):
    results = ResultFile(tmp_path, {})
    results.append(0, {})
    with open(tmp_path / "parts/part_0.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="part_0.jsonl, line 2, is no finished sample"):
        results.done()


PROCESSES = """
import atexit, json, sys
from pathlib import Path
import torch.distributed as dist
from videomind.logger import rank
from videomind.runs import workers


def tell_of_end():
    (Path(sys.argv[1]) / f"end_{rank()}.txt").write_text("in a group" if dist.is_initialized() else "left")

atexit.register(tell_of_end)  # the last of those that run at the end
workers.SHARED_FOLDER_S = 0.5
workers.start_processes()
folder = Path(sys.argv[1]) / (str(rank()) if sys.argv[2] == "apart" else "")
told = {}
try:
    results = workers.ResultFile(folder, {})
    results.append(rank(), {"by": rank()})  # while the others look
    told["pending"] = results.pending(range(6))
except ValueError as error:
    told["error"] = str(error)
(Path(sys.argv[1]) / f"told_{rank()}.json").write_text(json.dumps(told))
"""


@pytest.mark.parametrize("where", ["together", pytest.param("apart", marks=pytest.mark.slow)])
def test_processes_agree_on_what_is_to_do_or_that_they_cannot(tmp_path, where):
    """As on nodes that share a folder which lags, or none at all."""
    ResultFile(tmp_path, {}).append(5, {})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    (tmp_path / "run.py").write_text(PROCESSES)
    run = subprocess.run(
        [*command, str(tmp_path / "run.py"), str(tmp_path), where],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"told_{rank}.json").read_text()) for rank in (0, 1))
    if where == "apart":
        for told in (first, second):
            assert "is not the same folder on all nodes" in told["error"] and "--pred_path" in told["error"]
    else:
        assert first == second
        assert {2, 3, 4} <= set(first["pending"]) and 5 not in first["pending"]
        assert {part.name for part in (tmp_path / "parts").iterdir()} == {
            "part_0.jsonl",
            "part_0_0of2.jsonl",
            "part_0_1of2.jsonl",
        }
    assert not list(tmp_path.rglob("*.shared"))


def test_no_two_processes_that_run_at_once_write_to_one_file(tmp_path, monkeypatch):
    """Runs by hand (--chunk) on machines with different numbers of devices."""
    names = []
    for part, count in enumerate((1, 4, 2, 3, 1)):
        monkeypatch.setenv("WORLD_SIZE", str(count))
        for rank in range(count):
            monkeypatch.setenv("RANK", str(rank))
            results = ResultFile(tmp_path, {}, part=part)
            results.append(len(names), {})
            names.append(results)
    assert len(list((tmp_path / "parts").iterdir())) == len(names) == 11
    assert results.merge(11).read_text() == "{}\n" * 11
