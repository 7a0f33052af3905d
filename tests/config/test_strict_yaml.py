"""YAML as `params.yaml` is written: text stays text, and what could be read in two ways is refused by its line."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.config.strict_yaml import YamlTree, read_yaml
from lib.errors import MakegptError
from tests.conftest import PROJECT


def test_params_yaml_has_its_four_parts() -> None:
    tree = read_yaml((PROJECT / "params.yaml").read_text(encoding="utf-8"), "p.yaml")
    assert list(tree) == ["defaults", "configs", "wheels", "inputs"]


def test_values_stay_the_text_that_stands_there() -> None:
    text = "rate: 3e-4\nflag: no\nnone: null\nhex: 0x1F\ndate: 2024-01-01\nless: -1\nurl: https://a.b/{name}?x=1#y\n"
    assert read_yaml(text, "p.yaml") == {
        "rate": "3e-4",
        "flag": "no",
        "none": "null",
        "hex": "0x1F",
        "date": "2024-01-01",
        "less": "-1",
        "url": "https://a.b/{name}?x=1#y",
    }


def test_comments_end_a_value_only_after_a_space() -> None:
    text = "# first\na: b # c\nd: e#f\ng:  # h\n  i: j   # k\n\n  # l\nm: '# n' # o\n"
    assert read_yaml(text, "p.yaml") == {"a": "b", "d": "e#f", "g": {"i": "j"}, "m": "# n"}


def test_quotes_keep_what_stands_in_them() -> None:
    text = """a: "x: # \\" \\\\ \\n \\u00e9"\nb: 'it''s "so" \\n'\nc: ""\nd: ''\ne: ' '\nf: "/\\/"\n"""
    assert read_yaml(text, "p.yaml") == {"a": 'x: # " \\ \n é', "b": 'it\'s "so" \\n', "c": "", "d": "", "e": " ", "f": "//"}


def test_a_key_without_a_value_is_empty() -> None:
    text = "a:\nb:   \nc: # nothing\nd:\n  e:\nf: ''\n"
    assert read_yaml(text, "p.yaml") == {"a": "", "b": "", "c": "", "d": {"e": ""}, "f": ""}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", 3),
        ("a:\n  b: 1\n  b: 1\n", 3),
        ("a:\n  b: 1\nc: 1\na:\n  d: 1\n", 4),
        ("a:\na:\n", 2),
        ("a: {b: 1,\n  b: 2}\n", 2),
    ],
)
def test_a_key_that_stands_twice_is_refused_by_line(text: str, line: int) -> None:
    with pytest.raises(MakegptError, match=rf"p\.yaml line {line}: duplicate key '[ab]'"):
        read_yaml(text, "p.yaml")


def test_a_key_may_stand_again_in_another_section() -> None:
    assert read_yaml("a:\n  x: 1\nb:\n  x: 2\nx: 3\n", "p.yaml") == {"a": {"x": "1"}, "b": {"x": "2"}, "x": "3"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:\n    b: 1\n  c: 2\n", 3),
        ("a: 1\n  b: 2\n", 2),
        (" a: 1\nb: 2\n", 2),
        ("a:\n  b: 1\n   c: 2\n", 3),
        ("a:\n\tb: 1\n", 2),
        ("a: 1\nb: c: d\n", 2),
        ("a: 1\nb: @c\n", 2),
        ("a: 1\nb: *nobody\n", 2),
    ],
)
def test_bad_yaml_is_refused_by_line(text: str, line: int) -> None:
    with pytest.raises(MakegptError, match=rf"p\.yaml line {line}: not valid YAML"):
        read_yaml(text, "p.yaml")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just words\n", "[a]: b\n", "{a: b}: c\n", "\x00"])
def test_what_is_no_mapping_of_names_is_refused(text: str) -> None:
    with pytest.raises(MakegptError, match=r"p\.yaml"):
        read_yaml(text, "p.yaml")


PIECES = [
    *("a", "b", "a: ", "b:\n", "\n", "\n  ", " ", ":", "#", "-", "'", '"', "\\", "?", ",", "\t"),
    *("[", "]", "{", "}", "&a ", "*a", "|", ">", "!", "---", "\ufeff", "\u00a0", "\u2028", "\x85", '"\\ud83d\\ude00"'),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_read_as_strings_or_refused(text: str) -> None:
    with suppress(MakegptError):
        assert only_strings(read_yaml(text, "p.yaml"))


def only_strings(tree: YamlTree | list[object] | object) -> bool:
    """Whether the keys and the values of `tree` are strings, all the way down."""
    if isinstance(tree, dict):
        return all(isinstance(key, str) and only_strings(value) for key, value in tree.items())
    return all(map(only_strings, tree)) if isinstance(tree, list) else isinstance(tree, str)
