"""The plain reader, which needs no package, against PyYAML."""

import json
import re
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.config.strict_yaml import YamlTree, read_plain, read_yaml_library
from lib.errors import MakegptError
from tests.conftest import PROJECT

READERS = pytest.mark.parametrize("read", [read_yaml_library, read_plain])
Read = Callable[[str, str], YamlTree]


def both(text: str) -> YamlTree:
    """What the two readers agree on."""
    plain = read_plain(text, "p.yaml")
    assert plain == read_yaml_library(text, "p.yaml")
    return plain


def alike_or_refused(text: str) -> None:
    """The plain reader may refuse a text, but never read it as another tree than PyYAML does."""
    try:
        plain = read_plain(text, "p.yaml")
    except MakegptError:
        return
    assert plain == read_yaml_library(text, "p.yaml")


def test_both_readers_read_params_yaml_alike() -> None:
    assert list(both((PROJECT / "params.yaml").read_text(encoding="utf-8"))) == ["defaults", "configs", "wheels", "inputs"]


# Trees of keys and texts, written down in every manner that the plain reader takes.

BARE = re.compile(r"[\w~.+/(=<$^;·é€](?:[\w .,+/()=<>&*!|%@\[\]{}'\"?$^;#:·é€-]*[\w.,+/()=<>&*!|%@\[\]{}'\"?$^;#·é€-])?")
NAME = re.compile(r"[\w~.+/(=<$^;·é€](?:[\w .,+/()=<>&*!|%@?$^;·é€-]*[\w.,+/()=<>&*!|%@?$^;·é€-])?")


def is_bare(text: str) -> bool:
    """Whether YAML reads `text` as itself, unquoted, after a key."""
    return BARE.fullmatch(text) is not None and ": " not in text and " #" not in text


names = st.from_regex(NAME, fullmatch=True).filter(lambda name: not name.startswith("..."))
bare = st.from_regex(BARE, fullmatch=True).filter(is_bare)
printable = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zl", "Zp"]), max_size=12)
values = st.one_of(bare, printable, st.text(st.sampled_from("'\"\\#: ab\n\t\r\b\f"), max_size=8), st.just(""))
trees = st.dictionaries(
    names,
    st.recursive(values, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=4), max_leaves=12),
    min_size=1,
    max_size=5,
)


def written(tree: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any], indent: int = 0) -> list[str]:
    """`tree` as lines of YAML, its manner drawn: indents, quotes, comments, blank lines."""
    pad = " " * indent
    lines = []
    for key, value in tree.items():
        lines += draw(st.sampled_from([[], [], [""], [f"{pad}# a: comment"], ["#"]]))
        comment = draw(st.sampled_from(["", "", " # so: it's", "  #", "   "]))
        head = pad + key + ":"
        if isinstance(value, dict):
            lines += [head + comment, *written(value, draw, indent + draw(st.integers(1, 4)))]
            continue
        manners = ["double"]
        if value.isprintable() or not re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", value):
            manners.append("single")
        if value == "" or is_bare(value):
            manners.append("bare")
        manner = draw(st.sampled_from(manners))
        shown = {"double": json.dumps(value, ensure_ascii=False), "single": "'" + value.replace("'", "''") + "'", "bare": value}
        lines.append(head + " " * draw(st.integers(1, 3)) + shown[manner] + comment)
    return lines


@settings(max_examples=60, deadline=None)
@given(trees, st.data(), st.sampled_from(["\n", "\r\n"]))
def test_a_tree_written_in_the_plain_manner_is_read_back_by_both(tree: YamlTree, data: st.DataObject, newline: str) -> None:
    assert both(newline.join(written(tree, data.draw)) + newline) == tree


def test_values_stay_the_text_that_stands_there() -> None:
    text = "rate: 3e-4\nflag: no\nnone: null\nhex: 0x1F\ndate: 2024-01-01\nless: -1\nurl: https://a.b/{name}?x=1#y\n"
    assert both(text) == {
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
    assert both(text) == {"a": "b", "d": "e#f", "g": {"i": "j"}, "m": "# n"}


def test_quotes_keep_what_stands_in_them() -> None:
    text = """a: "x: # \\" \\\\ \\n \\u00e9"\nb: 'it''s "so" \\n'\nc: ""\nd: ''\ne: ' '\nf: "/\\/"\n"""
    assert both(text) == {"a": 'x: # " \\ \n é', "b": 'it\'s "so" \\n', "c": "", "d": "", "e": " ", "f": "//"}


def test_a_key_without_a_value_is_empty() -> None:
    assert both("a:\nb:   \nc: # nothing\nd:\n  e:\nf: ''\n") == {"a": "", "b": "", "c": "", "d": {"e": ""}, "f": ""}


@READERS
@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: 2\na: 3\n", 3), ("a:\n  b: 1\n  b: 1\n", 3), ("a:\n  b: 1\nc: 1\na:\n  d: 1\n", 4), ("a:\na:\n", 2)],
)
def test_a_key_that_stands_twice_is_refused_by_line(read: Read, text: str, line: int) -> None:
    with pytest.raises(MakegptError, match=rf"p\.yaml line {line}: duplicate key '[ab]'"):
        read(text, "p.yaml")


@READERS
def test_a_key_may_stand_again_in_another_section(read: Read) -> None:
    assert read("a:\n  x: 1\nb:\n  x: 2\nx: 3\n", "p.yaml") == {"a": {"x": "1"}, "b": {"x": "2"}, "x": "3"}


@READERS
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:\n    b: 1\n  c: 2\n", 3),
        ("a: 1\n  b: 2\n", 2),
        (" a: 1\nb: 2\n", 2),
        ("a:\n  b: 1\n   c: 2\n", 3),
        ("a:\n\tb: 1\n", 2),
    ],
)
def test_bad_indentation_is_refused_by_line(read: Read, text: str, line: int) -> None:
    with pytest.raises(MakegptError, match=rf"p\.yaml line {line}: "):
        read(text, "p.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "b: [1, 2]",
        "b: {c: 1}",
        "b: |",
        "b: >-",
        "b: &anchor c",
        "b: *anchor",
        "b: !!int 3",
        "b: @c",
        "b: `c`",
        "b: 'open",
        'b: "open',
        "b: 'shut' too",
        '"b": c',
        "? b",
        "- b",
        "b",
        "b:c",
        "---",
        "%YAML 1.1",
        "<<: *anchor",
        # What reads as a key and a value but is none to YAML, or another one.
        "- b: c",
        "b: - c",
        "b: -",
        "b: c: d",
        "b: c:",
        "? b: c",
        "b: ? c",
        "b: ]",
        "b: }",
        "b: , c",
    ],
)
def test_yaml_beyond_the_plain_manner_is_refused_by_its_line(line: str) -> None:
    with pytest.raises(MakegptError, match=r"p\.yaml line 3: "):
        read_plain(f"a: 1\n# second\n{line}\n", "p.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa: b\n",
        "a: b\u00a0\n",
        "a: b\u2003\n",
        "a: b\u2028c: d\n",
        "a: b\x85c: d\n",
        'a: "\\x41"\n',
        'a: "\\ "\n',
        'a: "b\tc"\n',
        'a: "\\ud83d\\ude00"\n',
    ],
)
def test_odd_marks_blanks_and_escapes_are_read_alike_or_refused(text: str) -> None:
    alike_or_refused(text)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "a: ", "b:\n", "\n", "\n  ", " ", ":", "#", "-", "'", '"', "\\", "?", ",", "\t"])).map(
        "".join
    )
)
def test_any_text_is_read_alike_or_refused(text: str) -> None:
    alike_or_refused(text)


@READERS
@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "just words\n", "[a]: b\n", "{a: b}: c\n", "\x00"])
def test_what_is_no_mapping_of_names_is_refused(read: Read, text: str) -> None:
    with pytest.raises(MakegptError, match=r"p\.yaml"):
        read(text, "p.yaml")


def test_bad_yaml_is_refused_by_line_by_the_library() -> None:
    with pytest.raises(MakegptError, match=r"p\.yaml line 2: not valid YAML"):
        read_yaml_library("a: 1\nb: c: d\n", "p.yaml")
