"""Mixture and collation: filters, bad samples with a record, padding, statistics."""

import errno
import json
import pickle
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.videos import numbered, write_video
from PIL import Image

from videomind.dataset.filters import Filters
from videomind.encoding.encoder import BadSampleError, Encoded
from videomind.faults import RunError
from videomind.model.losses import HeadTargets
from videomind.roles import VisualUnits
from videomind.runs.boundary import Fault
from videomind.train.mixture import Collator, Draw, Hopeless, Item, Mixture
from videomind.video import excerpts
from videomind.video.frame_cache import FrameCache

NO_QUERY = HeadTargets(spans=(), saliency=torch.zeros(0, 1), pos_clip=torch.zeros(0))


def item(input_ids, labels) -> Item:
    encoded = Encoded(
        input_ids=torch.tensor(input_ids),
        labels=torch.tensor(labels),
        pixel_values=torch.zeros(4, 6),
        grid=torch.tensor([1, 2, 2]),
    )
    return Item(encoded=encoded, bad=[])


@pytest.mark.golden
def test_collation(golden):
    """D406: the mask goes by length, so that a real token may have the padding's id.

    D407: nothing is cut, the encoder refuses what is too long.
    """
    for case in golden.json("units/collator.json"):
        batch = Collator(pad_token_id=case["pad_token_id"])([item(**row) for row in case["batch"]])
        limit = case["model_max_length"]
        for name in ("input_ids", "labels"):
            assert batch[name][:, :limit].tolist() == case["out"][name]
        lengths = [len(row["input_ids"]) for row in case["batch"]]
        longest = max(lengths)
        assert batch["attention_mask"].tolist() == [[1] * n + [0] * (longest - n) for n in lengths]
        assert batch["grids"].shape == (len(lengths), 3)


def test_a_batch_cannot_mix_kinds_of_samples():
    plain = item([1, 2], [-100, 2])
    grounds = Item(
        encoded=replace(plain.encoded, targets=NO_QUERY),
        bad=[],
    )
    with pytest.raises(ValueError, match="mixes samples with and without moments"):
        Collator(pad_token_id=0)([plain, grounds])


class NameEncoder:
    """Encodes a sample as its video's name and a random number."""

    def excerpt(self, sample):
        return sample.excerpt

    def __call__(self, sample, frames, rng):
        return SimpleNamespace(name=sample.excerpt.path.rpartition("/")[2], number=rng.random())


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    """A data set of six samples whose videos cannot be read unless they are listed."""
    folder = tmp_path / "charades_sta"
    (folder / "videos_3fps_480_noaudio").mkdir(parents=True)
    names = [f"v{i}" for i in range(6)]
    (folder / "durations.json").write_text(json.dumps(dict.fromkeys(names, 10.0)))
    (folder / "charades_sta_train.txt").write_text("".join(f"{n} 1 2##find {n}.\n" for n in names))

    def make(**kwargs) -> Mixture:
        return Mixture("charades_sta", encoder=NameEncoder(), data_root=tmp_path, **kwargs)

    good: set[str] = set()
    monkeypatch.setattr("videomind.train.mixture.read_excerpt", lambda excerpt: read(excerpt, good))
    return make, good


class CroppingEncoder(NameEncoder):
    """One that says in which units frames are cut, and gives them back."""

    def excerpt(self, sample):
        budget = replace(sample.excerpt.budget, max_frames=4).on(
            VisualUnits(token_side=28, frames_per_step=2)
        )
        return replace(sample.excerpt, budget=budget)

    def __call__(self, sample, frames, rng):
        return frames


@pytest.mark.parametrize("max_gb", [1.0, 1e-6])
def test_a_second_epoch_decodes_nothing(tmp_path, monkeypatch, max_gb):
    """Where the cache holds an epoch; with less room all is decoded again, and the frames are the same."""
    videos = tmp_path / "charades_sta/videos_3fps_480_noaudio"
    videos.mkdir(parents=True)
    names = [f"v{i}" for i in range(3)]
    for i, name in enumerate(names):
        write_video(videos / f"{name}.mp4", count=20, picture=lambda n, i=i: numbered(n + 40 * i))
    (videos.parent / "durations.json").write_text(json.dumps(dict.fromkeys(names, 20 / 30)))
    (videos.parent / "charades_sta_train.txt").write_text("".join(f"{n} 0 0.5##find {n}.\n" for n in names))
    opened, own = [], excerpts.open_reader
    monkeypatch.setattr(
        excerpts,
        "open_reader",
        lambda path, *args, **kwargs: (opened.append(path), own(path, *args, **kwargs))[1],
    )

    def epochs(kept: FrameCache | None) -> list[list[torch.Tensor]]:
        mixture = Mixture("charades_sta", encoder=CroppingEncoder(), data_root=tmp_path, kept=kept)
        mixture = pickle.loads(pickle.dumps(mixture))  # as a loader's worker gets it
        return [[mixture[Draw(i, epoch)].encoded for i in range(3)] for epoch in range(2)]

    without = epochs(None)
    assert len(opened) == 6
    opened.clear()
    found = epochs(FrameCache(tmp_path / "kept", max_gb=max_gb))
    assert len(opened) == (3 if max_gb == 1.0 else 6)
    for epoch, plain in zip(found, without, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(epoch, plain, strict=True))


def read(excerpt, good):
    name = excerpt.path.rpartition("/")[2]
    if name not in good:
        raise BadSampleError(f"{name} is broken")
    problems = [f"{name}: damaged"] if "damaged" in good else []
    return SimpleNamespace(frames=None, problems=problems)


def test_a_damaged_sample_is_used_and_recorded_or_skipped(mixture):
    make, good = mixture
    good.update({*(f"v{i}.mp4" for i in range(6)), "damaged"})
    out = make()[Draw(0, 3)]
    assert out.encoded.name == "v0.mp4"
    assert not out.bad and [(bad.reason, bad.is_used) for bad in out.damaged] == [("v0.mp4: damaged", True)]
    assert "v0.mp4: damaged (--on_damage skip" in str(make(on_damage="skip", max_retries=2)[Draw(0, 3)])


def test_a_bad_sample_is_recorded_and_replaced(mixture):
    make, good = mixture
    good.update({"v1.mp4", "v2.mp4"})
    out = make()[Draw(0, 3)]
    assert out.encoded.name in good
    assert out.bad[0].video_path.endswith("v0.mp4") and out.bad[0].reason == "v0.mp4 is broken"
    assert out.bad[0].source == "charades_sta" and out.bad[0].text == "find v0"


@pytest.mark.parametrize(
    "error",
    [Image.DecompressionBombError("bomb"), KeyError("k"), UnicodeDecodeError("utf-8", b"x", 0, 1, "r")],
)
def test_whatever_a_samples_data_raises_ends_that_sample(mixture, monkeypatch, error):
    make, good = mixture
    good.update(f"v{i}.mp4" for i in range(1, 6))

    def fails(excerpt):
        if excerpt.path.endswith("v0.mp4"):
            raise error
        return read(excerpt, good)

    monkeypatch.setattr("videomind.train.mixture.read_excerpt", fails)
    out = make()[Draw(0, 3)]
    assert out.encoded.name in good and [bad.video_path[-6:] for bad in out.bad] == ["v0.mp4"]
    assert out.bad[0].reason.startswith(f"{Fault.of(error).kind} at ")


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EMFILE, "Too many open files")])
def test_what_is_the_machines_ends_the_training(mixture, monkeypatch, error):
    def fails(excerpt):
        raise error

    monkeypatch.setattr("videomind.train.mixture.read_excerpt", fails)
    with pytest.raises(type(error)):
        mixture[0]()[0]


def test_stand_ins_are_the_same_on_every_worker(mixture):
    make, good = mixture
    good.update({"v1.mp4", "v2.mp4", "v4.mp4"})
    random.seed(1)
    first = [make()[Draw(0, epoch)].encoded for epoch in range(8)]
    random.seed(2)
    assert first == [make()[Draw(0, epoch)].encoded for epoch in range(8)]
    assert len({encoded.name for encoded in first}) > 1


def test_a_sample_without_a_good_stand_in_is_hopeless(mixture):
    make, _ = mixture
    hopeless = make(max_retries=3)[0]
    assert isinstance(hopeless, Hopeless) and len(hopeless.bad) == 4
    assert re.match(r"4 bad samples in a row \(--max_retries\).*is broken", str(hopeless))


def test_videos_that_go_away_are_no_bad_samples(mixture, tmp_path):
    make, good = mixture
    folder = tmp_path / "charades_sta/videos_3fps_480_noaudio"
    (folder / "v1.mp4").touch()
    good.add("v1.mp4")
    made = make()
    assert made[0].encoded.name == "v1.mp4"
    folder.rename(tmp_path / "gone")
    good.clear()
    with pytest.raises(RunError, match=f"The folder {folder} has gone"):
        made[0]


def test_statistics_tell_what_was_dropped(mixture):
    make, _ = mixture
    table = make(filters=Filters(max_num_words=200)).statistics()
    assert "charades_sta" in table and "video length (s): mean 10.00" in table
    with pytest.raises(ValueError, match=r"No sample is left(.|\n)*number of words +6"):
        make(filters=Filters(min_num_words=100))


def test_a_data_set_of_which_nothing_is_left_is_an_error(mixture, tmp_path):
    """It is most likely misplaced; training on the others alone would hide it."""
    mixture[0]()
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"video": "gone.mp4", "duration": 9, "query": "x", "span": [[1, 2]]}))
    with pytest.raises(ValueError, match=r"No sample is left of .*own.jsonl(.|\n)*video file not found +1"):
        Mixture(f"charades_sta,{own}", encoder=None, data_root=tmp_path)
