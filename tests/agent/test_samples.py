"""What each role is shown and asked at inference.

Covers `roles.py`.
"""

import codecs
from dataclasses import replace

import pytest

from videomind.agent.agent import video_annotation
from videomind.agent.samples import (
    ChainSettings,
    Subtitle,
    answer_span,
    answerer_sample,
    asked_text,
    grounder_sample,
    planner_sample,
    question_text,
    read_subtitles,
    subtitle_text,
)
from videomind.dataset.schema import Annotation
from videomind.roles import BudgetOverride, VisualBudget
from videomind.runs.boundary import Boundary

ANNO = Annotation(video_path="v.mp4", query="q", question="Which?", options=["red", ""], duration=100.0)


@pytest.mark.parametrize("options", [[None, "a"], ["a", 3], ["a", ["b"]]])
def test_an_option_that_is_no_text_is_refused_by_what_it_is(options):
    with pytest.raises(ValueError, match="stands where text is expected"):
        video_annotation("v.mp4", "Which?", options=options)


def test_question_styles():
    options = "Which?\nOptions:\n(A) Red\n(B) \nPlease only give the best option."
    assert question_text(ANNO, "mcq") == question_text(ANNO, "options") == options
    assert question_text(ANNO, "direct") == "Which?"
    samples = {style: answerer_sample(ANNO, None, ChainSettings(style=style)) for style in ("mcq", "options")}
    prefixes = {style: sample.response_prefix for style, sample in samples.items()}
    assert prefixes == {"mcq": "Best Option: (", "options": None}
    with pytest.raises(ValueError, match="Unknown style 'mc'.*Did you mean 'mcq'"):
        ChainSettings(style="mc")


def test_the_excerpt_is_as_long_as_the_source_wants():
    assert answer_span([50, 52], 100.0, ChainSettings()) == [35, 67]
    assert answer_span([0, 2], 100.0, ChainSettings(min_len_s=64)) == [0, 64]
    assert answer_span([50, 52], 100.0, ChainSettings(min_len_s=64, min_ratio=0.1)) == [46, 56]
    assert answer_span([1, 2], 20.0, ChainSettings()) == [0, 20]


def test_every_role_compares_the_annotations_length_with_the_files():
    samples = [
        planner_sample(ANNO, ChainSettings()),
        grounder_sample("v.mp4", "q", ChainSettings(), stated_s=ANNO.duration),
        answerer_sample(ANNO, [1, 2], ChainSettings()),
        answerer_sample(ANNO, None, ChainSettings()),
    ]
    assert [sample.excerpt.stated_s for sample in samples] == [100.0] * 4


def test_budgets():
    own = VisualBudget(min_tokens=100, max_tokens=128, max_frames=300, fps=2.0)
    settings = ChainSettings(answer_budget=own, budget=BudgetOverride(max_tokens=110))
    answered, grounded = answerer_sample(ANNO, [1, 2], settings), grounder_sample("v.mp4", "q", settings)
    assert (answered.excerpt.budget.max_tokens, answered.excerpt.budget.max_frames) == (110, 300)
    assert (grounded.excerpt.budget.max_tokens, grounded.excerpt.budget.fps) == (110, 1.0)
    assert (answered.excerpt.start_s, answered.excerpt.end_s) == (1, 2)


def test_what_is_asked():
    assert asked_text(ANNO, ChainSettings()) == "Which?"
    free = Annotation(query="q", question="Which?")
    assert asked_text(free, ChainSettings()) == "q"
    assert asked_text(free, ChainSettings(open_ended=True)) == "Which?"


SRT = """1
00:00:01,500 --> 00:00:03,000
Hello
there

2
00:01:00,000 --> 01:00:00,250
<i>late</i>
"""


ONE_LINE = "1\n00:00:01,000 --> 00:00:02,000\n{}\n"


@pytest.mark.parametrize(
    ("encoding", "text", "warns"),
    [
        ("utf-8", "é 字幕", False),
        ("utf-8-sig", "é 字幕", False),
        ("utf-16", "é 字幕", False),
        ("utf-16-be", "\ufeffé 字幕", False),
        ("utf-32", "é 字幕", False),
        ("cp1252", "it’s “café” – naïve", True),
        ("latin-1", "café", True),
    ],
)
def test_subtitles_of_any_usual_encoding(tmp_path, caplog, encoding, text, warns):
    path = tmp_path / "a.srt"
    path.write_bytes(ONE_LINE.format(text).encode(encoding) if encoding != "utf-16-be" else
                     codecs.BOM_UTF16_BE + ONE_LINE.format(text[1:]).encode(encoding))  # fmt: skip
    (line,) = read_subtitles(path)
    assert line.text == text.removeprefix("\ufeff") and line.start_s == 1.0
    assert ("a.srt are not UTF-8; they are read as cp1252" in caplog.text) == warns


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1\n00:00:01,000 --> 00:00:02,000\n\x81\x8d\n", "is no text in UTF-8 or cp1252"),
        (codecs.BOM_UTF8 + b"\xff", "is no text in utf-8-sig"),
        (codecs.BOM_UTF16_LE + b"a", "is no text in utf-16"),
    ],
)
def test_subtitles_of_no_encoding_end_their_sample(tmp_path, content, reason):
    path = tmp_path / "a.srt"
    path.write_bytes(content)
    anno = Annotation(video_path="v", question="q", options=["x"], subtitle_path=str(path))
    with Boundary() as sample:
        answerer_sample(anno, [0.0, 9.0], ChainSettings(use_subtitle=True))
    assert str(sample.fault) == f"{path} {reason}"
    folder = replace(anno, subtitle_path=str(tmp_path))
    with Boundary() as sample:
        answerer_sample(folder, [0.0, 9.0], ChainSettings(use_subtitle=True))
    assert str(sample.fault) == f"{tmp_path} cannot be read: Is a directory"


def test_subtitles_within_the_excerpt(tmp_path, caplog):
    (tmp_path / "a.srt").write_bytes(b"\xef\xbb\xbf" + SRT.replace("\n", "\r\n").encode())
    first, second = read_subtitles(tmp_path / "a.srt")
    assert first == Subtitle(start_s=1.5, end_s=3.0, text="Hello there")
    assert second.end_s == 3600.25
    text = subtitle_text([first, second], [1.0, 40.0])
    assert text == "You are given a video with 39.0 seconds long.\nSubtitles:\n0.5s - 2.0s, Hello there\n"
    assert subtitle_text([first] * 200, [0, 10]).count("Hello") == 100
    assert read_subtitles(tmp_path / "none.srt") == [] and "No subtitles" in caplog.text
    fields = {"question": "Which?", "options": ["a"]}
    asked = Annotation(video_path="v", subtitle_path=str(tmp_path / "a.srt"), **fields)
    read = answerer_sample(asked, None, ChainSettings(use_subtitle=True), 10.0).prompt
    assert read.startswith("You are given a video with 10.0 seconds long.\nSubtitles:\n1.5s")
    assert answerer_sample(asked, None, ChainSettings()).prompt.startswith("Which?")
    # As Video-MME's, which have no duration: the excerpt is enough.
    excerpt = answerer_sample(asked, [1.0, 4.0], ChainSettings(use_subtitle=True)).prompt
    assert excerpt.startswith(
        "You are given a video with 3.0 seconds long.\nSubtitles:\n0.5s - 2.0s, Hello there\n"
    )
