"""Each picture of each made file is the right one, or something is said: nothing silent, nothing bare."""

import pytest
from videos.checking import check
from videos.making import ODD, WHOLE, cut, damaged, flipped, whole, zeroed

SOME = [name for i, name in enumerate(WHOLE) if i % 4 == 0 or "hidden" in name or "palette" in name]
# FFmpeg decodes them without a word where a bit is flipped: nothing there could be checked.
HIDES_FLIPS = ("libvpx", "mjpeg", "speedhq")
BROKEN = ("h264 mp4", "h264 mkv", "h264 ts", "vp9 hidden webm", "av1 mp4", "mpeg4 b avi", "mjpeg avi")


def made(folder, name):
    try:
        return whole(folder, name)
    except ValueError as error:  # av.error.ArgumentError is one
        pytest.skip(f"this PyAV cannot write {name}: {error}")


@pytest.mark.parametrize("name", SOME)
def test_every_frame_of_a_whole_file(tmp_path, name):
    verdict = check(made(tmp_path, name))
    assert verdict.wrong == [] and verdict.right


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WHOLE if name not in SOME])
def test_every_frame_of_every_other_whole_file(tmp_path, name):
    verdict = check(made(tmp_path, name))
    assert verdict.wrong == [] and verdict.right + verdict.marked


@pytest.mark.parametrize("name", ODD)
def test_every_frame_of_an_odd_file(tmp_path, name):
    file = ODD[name](tmp_path)
    verdict = check(file)
    assert verdict.wrong == [] and verdict.right + verdict.marked
    assert file.is_whole or verdict.marked


@pytest.mark.parametrize("name", BROKEN)
def test_damage_is_seen_or_harmless(tmp_path, name):
    file = made(tmp_path, name)
    for broken in (cut(file, 5), flipped(file, 1), zeroed(file, 1)):
        assert check(broken, singles=4, clips=2).wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_all_damage_is_seen_or_harmless(tmp_path, name):
    for broken in damaged(made(tmp_path, name)):
        if "flipped" in broken.path.name and WHOLE[name].codec in HIDES_FLIPS:
            continue
        assert silently_wrong(broken) == [], broken.path.name


def silently_wrong(broken) -> list[str]:
    """Reads that are wrong without a word, twice: H.264's threads may lose one in a while."""
    wrong = check(broken, singles=5, clips=3).wrong
    return wrong and check(broken, singles=5, clips=3).wrong
