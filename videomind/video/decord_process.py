"""decord in a process of its own: on some damaged files it aborts or hangs, which then ends the video alone.

Run as a file, not as a module: it needs decord alone. `python decord_process.py DESCRIPTOR PATH THREADS`
answers on a socket, to None with the number of frames and the rate, to frame numbers with their pictures.
"""

import importlib
import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from typing import Any

PATIENCE_S = 300.0  # for one answer


class DecordProcess:
    """A video that another process has open.

    Args:
        path: of the video.
        threads: that decode it.
    """

    def __init__(self, path: str, threads: int):
        self._answers, theirs = multiprocessing.Pipe()
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(  # -P: files beside this one are no modules
                [sys.executable, "-P", __file__, str(descriptor), path, str(threads)],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
            )

    def ask(self, numbers: list[int] | None) -> Any:
        """Ask for the pictures of frames, (N, H, W, 3) uint8; None is for the number of frames and the rate.

        Raises:
            RuntimeError: decord says so, or it ended or hangs.
        """
        try:
            self._answers.send(numbers)
            if not self._answers.poll(PATIENCE_S):
                self.close()
                raise RuntimeError(f"decord hangs: it gave no answer for {PATIENCE_S:g} s")
            answer = self._answers.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"decord ended its process ({self._process.wait()})") from None
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._answers.close()
        self._process.kill()
        self._process.wait()


def _serve(answers: Connection, path: str, threads: int) -> None:
    decord = importlib.import_module("decord")

    video = None
    while True:
        try:
            numbers = answers.recv()
        except (EOFError, ConnectionError):  # nobody asks any more
            return
        try:
            video = video or decord.VideoReader(path, num_threads=threads)
            is_first = numbers is None
            answer = (
                (len(video), float(video.get_avg_fps())) if is_first else video.get_batch(numbers).asnumpy()
            )
        except (decord.DECORDError, RuntimeError) as error:
            answer = str(error) or type(error).__name__
        answers.send(answer)


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
