"""The stages as users run them: commands, pipes, exit codes, one-line errors."""

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages import STAGES, command_name
from tests.conftest import BIN, FEW, PROJECT, TEXT, TINY, Here, Stage, spent

NAMES = [command_name(stage) for stage in STAGES]


def shell(command: str, **settings: object) -> "subprocess.CompletedProcess[bytes]":
    """Run a command in a real shell, with the stages on its PATH."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    words = ["bash", "-c", f"set -o pipefail; {command}"]
    return subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, timeout=120, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_help_answers_without_loading_torch(name: str, command: Stage) -> None:
    before = spent()
    done = command(name, "--help")
    assert done.stdout.startswith(f"Usage: {name}")
    assert spent() - before < 1.5, "it takes 0.2 s"


def test_no_stage_loads_torch_before_it_is_called() -> None:
    modules = ", ".join(f"stages.{name.replace('-', '_')}" for name in NAMES)
    loaded = f"import sys, {modules}; print({{'torch', 'matplotlib', 'tiktoken', 'numpy'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=PROJECT, capture_output=True, text=True).stdout == "set()\n"


def test_every_option_says_its_default_or_is_a_flag(stage: Stage) -> None:
    assert "[default: 0.8]" in " ".join(stage("generate", "--help").stdout.split())
    assert "[default: 256]" in " ".join(stage("build-dataset", "--help").stdout.split())


def test_the_stages_are_listed_and_run_as_modules() -> None:
    listed = subprocess.run([sys.executable, "-m", "stages"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    lines = listed[listed.index("Stages:") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == NAMES
    assert NAMES[:3] == ["fetch", "tokenize", "build-dataset"]
    done = subprocess.run([sys.executable, "-m", "stages.tokenize", "--help"], cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.startswith("Usage: tokenize")


@pytest.mark.parametrize("kind", ["bytes", "gpt2"])
def test_ids_and_back_are_exact_for_any_text(kind: str, fetched: object, tmp_path: Path) -> None:
    if kind == "gpt2":
        fetched("gpt2")  # type: ignore[operator]
    text = "\ufeffa\r\nb\rc\u2028d\u0085e\x00\x1c  \t\n\n é😀 <|endoftext|> 'll don't \u3000 e\u0301 \U0010ffff end".encode()
    (tmp_path / "odd.txt").write_bytes(text)
    done = shell(f"tokenize --ids --tokenizer {kind} < {tmp_path}/odd.txt | tokenize --decode --tokenizer {kind}")
    assert done.stdout == text
    assert done.stderr == b""


def test_each_file_gives_one_line_of_ids_and_an_empty_file_an_empty_line(tmp_path: Path, stage: Stage) -> None:
    for name, text in {"a": "hi\nyou\n", "b": "", "c": "é"}.items():
        (tmp_path / name).write_text(text)
    done = stage("tokenize", "--ids", "--tokenizer", "bytes", tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert done.stdout == "104 105 10 121 111 117 10\n\n195 169\n"


def test_a_broken_pipe_exits_quietly(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(TEXT * 500)
    done = shell(f"cat {tmp_path}/long.txt | tokenize --ids --tokenizer bytes - | head -c 20")
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 20)


def test_a_saved_vocabulary_is_used_again(small: Path, tmp_path: Path, stage: Stage) -> None:
    stage("tokenize", small / "play.txt", "-o", tmp_path / "tokens", "--tokenizer", "char")
    done = shell(
        f"tokenize --ids --tokenizer {tmp_path}/tokens < {small}/play.txt | tokenize --decode --tokenizer {tmp_path}/tokens"
    )
    assert done.stdout.decode() == TEXT
    stage("tokenize", small / "play.txt", "-o", tmp_path / "again", "--tokenizer", tmp_path / "tokens")
    assert (tmp_path / "again" / "shard-00000.npy").read_bytes() == (tmp_path / "tokens" / "shard-00000.npy").read_bytes()


def test_stdin_becomes_one_document(tmp_path: Path, stage: Stage) -> None:
    stage("tokenize", "-o", tmp_path / "tokens", "--tokenizer", "bytes", input=TEXT)
    assert (
        np.load(tmp_path / "tokens" / "shard-00000.npy").tobytes()
        == np.frombuffer(TEXT.encode(), np.uint8).astype(np.uint16).tobytes()
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens"]


def test_files_are_documents_separated_by_endoftext(tmp_path: Path, stage: Stage, fetched: object) -> None:
    fetched("gpt2")  # type: ignore[operator]
    for name in ("a", "b"):
        (tmp_path / name).write_text("Hello, I am")
    stage("tokenize", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "tokens")
    assert np.load(tmp_path / "tokens" / "shard-00000.npy").tolist() == [15496, 11, 314, 716, 50256, 15496, 11, 314, 716]


def test_evaluate_is_one_json_object(small: Path, stage: Stage) -> None:
    result = json.loads(stage("evaluate", small / "run", *FEW).stdout)
    assert {"split", "tokens", "bytes", "loss", "perplexity", "bits_per_byte", "baselines"} <= result.keys()
    assert result["baselines"]["uniform"]["bits_per_byte"] == pytest.approx(8.0)
    metrics = [json.loads(line) for line in (small / "run" / "metrics.jsonl").read_text().splitlines()]
    best = min(m["val_loss"] for m in metrics if m["val_loss"] is not None and m["step"])
    assert result["loss"] == pytest.approx(best, rel=1e-5)
    assert result["tokens"] == json.loads((small / "dataset" / "dataset.json").read_text())["val_tokens"] - 1


def test_evaluate_writes_the_same_to_a_file(small: Path, tmp_path: Path, stage: Stage) -> None:
    done = stage("evaluate", small / "run", small / "dataset", "-o", tmp_path / "evaluation.json", *FEW)
    assert done.stdout == ""
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(stage("evaluate", small / "run", *FEW).stdout)


def test_generate_gives_the_continuation_only(small: Path, stage: Stage) -> None:
    plain = stage("generate", small / "run", "To be", "--max-new-tokens", 20).stdout
    echoed = stage("generate", small / "run", "To be", "--max-new-tokens", 20, "--echo").stdout
    piped = stage("generate", small / "run", "-", "--max-new-tokens", 20, input="To be\n").stdout
    assert echoed == "To be" + plain
    assert piped == plain
    assert stage("generate", small / "run", "To be", "--max-new-tokens", 20, "--seed", 2).stdout != plain


def test_generate_writes_json(small: Path, stage: Stage) -> None:
    result = json.loads(stage("generate", small / "run", "To", "--json", "--max-new-tokens", 40, "--temperature", 0).stdout)
    assert list(result) == ["prompt", "text", "tokens", "logprobs", "finish_reason", "seed"]
    assert len(result["tokens"]) == len(result["logprobs"]) == 40
    assert max(result["logprobs"]) < 0
    assert result["finish_reason"] == "length"


def test_generate_goes_beyond_the_context(small: Path, stage: Stage) -> None:
    assert len(json.loads(stage("generate", small / "run", TEXT, "--json", "--max-new-tokens", 50).stdout)["tokens"]) == 50


def test_a_run_folder_works_wherever_it_is_copied(copied: Path, stage: Stage, small: Path) -> None:
    (copied / "run").rename(copied / "moved")
    words = ["To be", "--max-new-tokens", "8"]
    assert stage("generate", copied / "moved", *words).stdout == stage("generate", small / "run", *words).stdout


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot_draws_the_same_bytes_each_time(
    small: Path, tmp_path: Path, ending: str, start: bytes, command: Stage, stage: Stage
) -> None:
    for name, run in (("a", command), ("b", stage)):
        run("plot", "loss", small / "run", small / "run", "-o", tmp_path / f"{name}.{ending}")
    content = (tmp_path / f"a.{ending}").read_bytes()
    assert content.startswith(start)
    assert content == (tmp_path / f"b.{ending}").read_bytes()


def test_the_plan_is_json_and_trains_nothing(small: Path, stage: Stage, tmp_path: Path) -> None:
    plan = json.loads(stage("train", small / "dataset", "--config", "debug", "--plan", "-o", tmp_path / "run").stdout)
    assert list(plan) == [
        "parameters",
        "tokens",
        "tokens_per_parameter",
        "steps",
        "seconds",
        "bfloat16_speedup",
        "memory_bytes",
    ]
    assert (plan["parameters"], plan["steps"], plan["tokens"]) == (42_688, 60, 60 * 8 * 32)
    assert not (tmp_path / "run").exists()


def test_inspect_walks_back_to_the_text(small: Path, stage: Stage) -> None:
    lineage = json.loads(stage("inspect", small / "run", "--json").stdout)
    (dataset,) = lineage["from"]
    (tokens,) = dataset["from"]
    (text,) = tokens["from"]
    assert (lineage["is"], dataset["is"], tokens["is"], text["is"]) == ("run", "dataset", "tokens", "text")
    assert text["path"] == str(small / "play.txt")
    assert text["bytes"] == len(TEXT.encode())
    assert "every file is as it was written" in stage("inspect", small / "run", "--verify").stderr


@pytest.mark.parametrize("path", ["run/model.safetensors", "tokens/shard-00000.npy", "tokens/tokenizer.json"])
def test_inspect_describes_single_files(small: Path, stage: Stage, path: str) -> None:
    assert f"path: {small / path}" in stage("inspect", small / path).stdout


def test_quiet_suppresses_log_messages(small: Path, tmp_path: Path, stage: Stage) -> None:
    assert stage("train", small / "dataset", "-o", tmp_path / "run", "--config", "debug", *TINY, "--quiet").stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        "tokenize --ids --tokenizer bytes <&-", "tokenize --decode --tokenizer bytes <&-", "generate RUN - <&-",
        "generate RUN a >&-", "tokenize --ids --tokenizer bytes PLAY >&-",
    ],
)  # fmt: skip
def test_a_closed_stream_is_an_empty_one(command: str, small: Path) -> None:
    done = shell(command.replace("RUN", str(small / "run")).replace("PLAY", str(small / "play.txt")))
    assert b"Traceback" not in done.stderr
    assert b"bug in makegpt" not in done.stderr


@pytest.mark.parametrize("temperature", ["1e-300", "1e-45", "1e6"])
def test_any_temperature_gives_finite_probabilities(small: Path, stage: Stage, temperature: str) -> None:
    assert stage("generate", small / "run", "To", "--temperature", temperature, "--max-new-tokens", 3).stdout


def test_ids_may_be_separated_by_any_whitespace(stage: Stage) -> None:
    assert stage("tokenize", "--decode", "--tokenizer", "bytes", input="72\t105\r\n 33").stdout == "Hi!"
    assert "is not an id" in stage("tokenize", "--decode", "--tokenizer", "bytes", input="1" * 5000, code=1).stderr


def test_a_pipe_instead_of_a_file_is_read(tmp_path: Path) -> None:
    done = shell(f"tokenize <(printf hello) -o {tmp_path}/tokens --tokenizer bytes; ls -A {tmp_path}")
    assert done.stdout == b"tokens\n", done.stderr


def test_a_file_whose_name_is_not_unicode_is_recorded(tmp_path: Path) -> None:
    command = "printf hello > $'\\xff.txt'; tokenize $'\\xff.txt' -o tokens --tokenizer bytes && inspect tokens --json"
    done = shell(f"cd {tmp_path}; {command}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["from"][0]["bytes"] == 5


# Errors.


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("tokenize nothing.txt -o OUT --tokenizer bytes", 1, "nothing.txt does not exist"),
        ("tokenize EMPTY -o OUT --tokenizer bytes", 1, "is empty"),
        ("tokenize BINARY -o OUT --tokenizer bytes", 1, "is not valid UTF-8"),
        ("tokenize NUL -o OUT --tokenizer bytes", 1, "looks like a binary file"),
        ("tokenize PLAY -o OUT --tokenizer gtp2", 2, "did you mean 'gpt2'"),
        ("tokenize PLAY --ids --decode", 2, "give one of -o DIR, --ids and --decode"),
        ("tokenize PLAY --ids --tokenizer char", 2, "needs a saved vocabulary"),
        ("tokenize PLAY -o RUN", 2, "holds a run; choose another folder for tokens"),
        ("tokenize PLAY -o HOME", 2, "is not empty and not made by this program"),
        ("tokenize . -o OUT --tokenizer bytes", 1, ". is a folder; name the text files in it"),
        ("build-dataset TOKENS -o OUT --context-length 4000", 1, "one training window takes 4001"),
        ("build-dataset RUN -o OUT", 1, "holds a run, not tokens"),
        ("build-dataset nowhere -o OUT", 1, "nowhere does not exist"),
        ("build-dataset TOKENS -o OUT --val-fraction 1.5", 2, "val_fraction=1.5 must be between 1e-09 and 0.999"),
        ("build-dataset TOKENS -o OUT --test-fraction -0.1", 2, "test_fraction=-0.1 must be between 0 and 0.999"),
        ("build-dataset TOKENS -o OUT --val-fraction 0.5 --test-fraction 0.5", 2, "add up to 1.0, which leaves nothing for"),
        (
            "build-dataset TOKENS -o OUT --test-fraction 1e-9 --set build-dataset.val_fraction=1e-9",
            1,
            "0 for validation and 1 f",
        ),
        ("train DATASET -o OUT", 2, "Missing option '--config'"),
        ("train DATASET -o OUT --config debgu", 2, "did you mean 'debug'"),
        ("train DATASET -o OUT --config debug --set train.lerning_rate=1", 2, "did you mean 'learning_rate'"),
        ("train DATASET -o OUT --config debug --set model.emb_dim=33", 2, "must be divisible by model.n_heads=2; use 32 or 34"),
        ("train DATASET -o OUT --config debug --max-steps many", 2, "train.max_steps=many must be an integer"),
        ("train DATASET -o OUT --config debug --set model.context_length=64", 2, "has windows of 32"),
        ("train DATASET -o OUT --config debug --device cuda", 2, "--device cuda is not available here; use cpu"),
        ("train TOKENS -o OUT --config debug", 1, "holds tokens, not a dataset"),
        ("train DATASET -o HOME --config debug", 2, "is not empty and not made by this program"),
        ("train DATASET --config debug", 2, "give -o RUN"),
        ("evaluate DATASET", 1, "holds a dataset, not a run"),
        ("evaluate HOME", 1, "has no manifest.json, so it is not a run"),
        ("evaluate RUN --split test", 1, "has no test split; build a dataset that has one, `build-dataset TOKENS"),
        ("evaluate RUN CHARS", 1, "was made with another tokenizer than the model"),
        ("generate nowhere", 1, "nowhere does not exist"),
        ("generate RUN --temperature -1", 2, "temperature=-1 must be between 0 and 1000000"),
        ("generate RUN --tempreature 1", 2, "No such option '--tempreature'"),
        ("generate CHARRUN Grüß", 1, "'ü' (U+00FC) at position 2"),
        ("plot loss RUN -o OUT.pdf", 2, "unknown format; the name must end in .png or .svg"),
        ("plot los RUN -o OUT.png", 2, "'los' is not"),
        ("plot loss -o OUT.png", 2, "plot loss needs a trained run; name its folder"),
        ("plot mask RUN -o OUT.png", 2, "plot mask takes no run; use --config and --set"),
        ("plot attention RUN CHARRUN -o OUT.png", 2, "plot attention takes one run"),
        ("plot attention CHARRUN --prompt Grüß -o OUT.png", 1, "'ü' (U+00FC) at position 2"),
        ("plot model --config decoder -o OUT.png", 2, "give its size with --set model.vocab_size=65, or name a run"),
        ("plot model gpt_balancd -o OUT.png", 2, "did you mean 'gpt_balanced'"),
        ("plot model no/where -o OUT.png", 1, "no/where does not exist"),
        ("plot loss RUN", 2, "give -o FILE.png or -o FILE.svg"),
        ("plot mask --panels -o OUT.png", 2, "--panels is for plot loss"),
        ("plot loss RUN --text PLAY -o OUT.png", 2, "--text is for plot tokens"),
        ("plot tokens RUN --text PLAY -o OUT.png", 2, "give -o FILE.html, or no -o for the terminal"),
        ("plot tokens RUN --text nothing.txt", 1, "nothing.txt does not exist"),
        ("plot tokens RUN CHARRUN", 2, "plot tokens takes one run"),
        ("plot tokens CHARRUN --prompt Grüß", 1, "'ü' (U+00FC) at position 2"),
        ("plot ladder RUN -o OUT.png", 1, "has not been evaluated; run `evaluate"),
        ("plot mask --summary -o OUT.png", 2, "--summary is for plot loss, ladder, attention or lens"),
        ("plot mask --config bigram -o OUT.png", 2, "a bigram has no attention"),
        ("compare DATASET", 1, "holds a dataset, not a run"),
        ("compare CHARRUN", 1, "has not been evaluated; run `evaluate"),
        ("plot mask --set model.context_length=100000 -o OUT.png", 2, "use --set model.context_length=4096"),
        ("explain atention", 2, "did you mean 'attention'"),
        ("reproduce parameters-smal", 2, "did you mean 'parameters-small'"),
        ("inspect PLAY", 1, "is not an artifact"),
        ("import-weights nowhere -o OUT", 1, "nowhere does not exist; it must be a folder with config.json and"),
        ("import-weights RUN", 2, "Missing option '-o'"),
        ("export-weights DATASET -o OUT", 1, "holds a dataset, not a run"),
        ("fetch hamlett", 2, "did you mean 'hamlet'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: str, code: int, says: str, small: Path, char_run: Path, tmp_path: Path, here: Here
) -> None:
    files = {"EMPTY": b"", "BINARY": b"\x89PNG\r\n\x1a\n\x00", "NUL": b"a\x00b"}
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("mine")
    places = {name: str(tmp_path / name.lower()) for name in files} | {
        "OUT": str(tmp_path / "out"), "HOME": str(home), "PLAY": str(small / "play.txt"), "RUN": str(small / "run"),
        "TOKENS": str(small / "tokens"), "DATASET": str(small / "dataset"), "CHARS": str(char_run / "dataset"),
        "CHARRUN": str(char_run / "run"), "OUT.pdf": str(tmp_path / "out.pdf"), "OUT.png": str(tmp_path / "out.png"),
    }  # fmt: skip
    for name, content in files.items():
        Path(places[name]).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    name, *rest = words.split()
    done = here(name, *[places.get(word, word) for word in rest], code=code)
    assert done.out == ""
    assert done.err.startswith(f"{name}: error: ")
    assert len(done.err.splitlines()) == 1
    assert says in done.err
    assert [
        path for path in sorted(tmp_path.rglob("*")) if path not in before and path.name != ".lock" and path != tmp_path / "out"
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_error_ends_a_real_process_with_its_code_and_one_line(name: str, stage: Stage) -> None:
    done = stage(name, "--no-such-option", code=2)
    assert done.stdout == ""
    assert done.stderr.startswith(f"{name}: error: No such option '--no-such-option'")
    assert len(done.stderr.splitlines()) == 1


def test_invalid_bytes_are_reported_by_offset_or_replaced(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"caf\xe9!")
    done = stage("tokenize", "--ids", "--tokenizer", "bytes", tmp_path / "latin1", code=1)
    assert "byte 3 (0xe9) is not valid UTF-8" in done.stderr
    done = stage("tokenize", "--ids", "--tokenizer", "bytes", "--errors", "replace", tmp_path / "latin1")
    assert bytes(map(int, done.stdout.split())).decode() == "caf\ufffd!"


@pytest.fixture(scope="session")
def char_run(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A run whose tokenizer knows few characters."""
    folder = tmp_path_factory.mktemp("char")
    (folder / "text.txt").write_text("abcdefghij Grst\n" * 100)
    stage("tokenize", folder / "text.txt", "-o", folder / "tokens", "--tokenizer", "char")
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", "--config", "debug")
    stage("train", folder / "dataset", "-o", folder / "run", "--config", "debug", *TINY)
    return folder


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size - 7)
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[-9] ^= 4
        path.write_bytes(content)
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize(
    ("path", "reader"),
    [
        ("tokens/shard-00000.npy", "build-dataset tokens -o new"),
        ("tokens/shard-00000.npy", "train dataset -o new --config debug"),
        ("dataset/dataset.json", "train dataset -o new --config debug"),
        ("run/model.safetensors", "generate run"),
        ("run/tokenizer.json", "evaluate run"),
        ("run/config.json", "generate run"),
    ],
)
def test_a_damaged_artifact_is_refused_by_name(copied: Path, here: Here, path: str, reader: str, how: str) -> None:
    damage(copied / path, how)
    name, first, *rest = reader.split()
    said = here(name, copied / first, *[copied / "new" if word == "new" else word for word in rest], code=1).err
    assert path.split("/")[1] in said
    assert len(said.splitlines()) == 1
    assert not (copied / "new").exists()


@pytest.mark.parametrize("folder", ["tokens", "dataset", "run"])
def test_a_folder_without_its_manifest_is_refused(copied: Path, here: Here, folder: str) -> None:
    (copied / folder / "manifest.json").unlink()
    reader = {"tokens": "build-dataset", "dataset": "train", "run": "generate"}[folder]
    extra = {"build-dataset": ["-o", copied / "new"], "train": ["-o", copied / "new", "--config", "debug"], "generate": []}[
        reader
    ]
    assert "has no manifest.json" in here(reader, copied / folder, *extra, code=1).err


def test_a_dataset_whose_tokens_changed_is_refused(copied: Path, stage: Stage) -> None:
    (copied / "play.txt").write_text(TEXT + "more")
    stage("tokenize", copied / "play.txt", "-o", copied / "tokens", "--config", "debug")
    done = stage("train", copied / "dataset", "-o", copied / "new", "--config", "debug", code=1)
    assert "has changed since" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_no_permission_is_one_line(small: Path, tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    (tmp_path / "locked").mkdir(mode=0o700)
    code = (
        f"import os, sys; from stages.tokenize import main; import lib.data.corpus; os.setuid({nobody});"
        f"main(['play.txt', '-o', {str(tmp_path / 'locked' / 'tokens')!r}, '--tokenizer', 'bytes'])"
    )
    (tmp_path / "play.txt").write_text(TEXT)
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("stage_name", ["tokenize", "train"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(small: Path, tmp_path: Path, stage_name: str) -> None:
    """A limit on the file size stands in for a full disk: the write itself fails."""
    (tmp_path / "long.txt").write_text(TEXT * 100)
    words = {"tokenize": f"{tmp_path}/long.txt -o {tmp_path}/out", "train": f"{small}/dataset -o {tmp_path}/out"}[stage_name]
    done = shell(f"ulimit -f 64; {stage_name} {words} --config debug")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"File too large" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "manifest.json").exists() or stage_name == "train"
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("model.safetensors"))
