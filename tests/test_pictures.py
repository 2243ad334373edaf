"""The pictures of the README: each one there, used, told what it is, small, and as wide as the others."""

import re
import struct

from demo.stack import ROOT

README = (ROOT / "README.md").read_text()
PICTURES = sorted((ROOT / "assets").glob("*.png"))


def test_every_picture_is_used_and_none_is_missing() -> None:
    used = re.findall(r"!\[.+?]\((assets/.+?)\)", README)
    assert sorted(used) == [str(picture.relative_to(ROOT)) for picture in PICTURES]


def test_every_picture_has_a_caption_that_names_the_program() -> None:
    captions = re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+\n\*([^*]+)\*\n", README)
    assert len(re.findall(r"(?:!\[.+?]\(assets/.+?\)\n)+", README)) == len(captions)
    assert [caption for caption in captions if "Prometheus" not in caption] == []


def test_pictures_are_small_and_of_one_width() -> None:
    assert [picture.name for picture in PICTURES if picture.stat().st_size >= 150_000] == []
    assert {struct.unpack(">I", picture.read_bytes()[16:20])[0] for picture in PICTURES} == {1600}
