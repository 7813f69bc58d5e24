"""Random frames of long files equal, bit for bit, what decoding the whole file in order gives.

For codecs whose packets are no pictures (hidden ones, film grain, superframes). Covers `video/pyav.py`.
"""

import random
from dataclasses import replace

import av
import numpy as np
import pytest
from videos.making import WHOLE, write

from videomind.video.readers import open_reader

COUNT = 250
FRAMES = {  # at least, of each file
    "av1 mp4": 340, "av1 10 bit": 340, "av1 grain": 340, "vp8 hidden webm": 160, "vp9 hidden webm": 160,
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_random_frames_are_those_of_decoding_in_order(tmp_path, name):
    recipe = replace(WHOLE[name], count=COUNT)
    try:
        path = write(tmp_path / f"v{recipe.suffix}", recipe).path
    except ValueError as error:  # av.error.ArgumentError is one
        pytest.skip(f"this PyAV cannot write {name}: {error}")
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        in_order = [frame.reformat(format="rgb24").to_ndarray() for frame in frames]
    assert len(in_order) == COUNT
    rng, compared = random.Random(name), 0
    while compared < FRAMES[name]:
        with open_reader(path, "pyav") as reader:  # a fresh decoder for every read
            assert reader.total_frames == COUNT
            indices = rng.sample(range(COUNT), rng.choice((1, 1, 2, 8, 24)))
            pictures, problems = reader.get_frames(indices)
        assert problems == []
        for index, picture in zip(indices, pictures, strict=True):
            np.testing.assert_array_equal(picture, in_order[index], err_msg=f"frame {index}")
        compared += len(indices)
