"""An encoder-decoder on held-out sources: loss, error rates, counts of graphones next to it, and `evaluate` as a command."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch

from lib.data.dataset import Dataset
from lib.errors import MakegptError
from lib.evaluate.classification import wilson_interval
from lib.evaluate.translation import GRAPHONES, References, read_translation_evaluation, target_nats
from lib.generate.translations import translations
from lib.model.encoder_decoder import EncoderDecoder
from lib.run.folder import load_run
from tests.conftest import Here, Stage

#: Letters that are always pronounced alike; every seventh word may end in another sound.
SOUNDS = {"a": " AE", "b": " B", "k": " K", "t": " T", "o": " OW"}
WORDS = ["".join(letters) for length in (2, 3, 4) for letters in product(SOUNDS, repeat=length)][::2]
DICTIONARY = "".join(
    f"{word}{''.join(SOUNDS[letter] for letter in word)}\n"
    + (f"{word}{''.join(SOUNDS[letter] for letter in word[:-1])} Z\n" if number % 7 == 0 else "")
    for number, word in enumerate(WORDS)
)
SETTINGS = ("--config", "g2p", "--set", "model.emb_dim=32", "--set", "model.n_layers=1", "--set", "train.batch_size=16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with tokens/, dataset/ and a run/ that has learned a little."""
    folder = tmp_path_factory.mktemp("translation")
    (folder / "words.dict").write_text(DICTIONARY)
    stage("tokenize", "--parallel", folder / "words.dict", "--tokenizer", "symbols", "-o", folder / "tokens")
    stage("build-dataset", folder / "tokens", "-o", folder / "dataset", "--config", "g2p", "--val-fraction", 0.2)
    stage("train", folder / "dataset", *SETTINGS, "--max-steps", 60, "-o", folder / "run")
    return folder


def test_evaluate_shows_the_error_rates_of_the_model_and_of_graphones(folder: Path, here: Here) -> None:
    output = here("evaluate", folder / "run", "--split", "val")
    result = json.loads(output.out)
    errors, sources = result["errors"], result["sources"]
    wrong = round(errors["word_error_rate"] * sources)
    assert errors["word_error_rate"] == pytest.approx(wrong / sources)
    assert errors["interval"] == pytest.approx(wilson_interval(wrong, sources))
    assert wrong / result["pairs"] <= errors["pair_error_rate"] < 1
    counts = result["baselines"][GRAPHONES]
    assert counts["errors"]["word_error_rate"] < 0.2  # the rules are within reach of counts
    assert counts["right_alone"] - counts["model_right_alone"] == wrong - round(counts["errors"]["word_error_rate"] * sources)
    assert f"val split, {sources} sources with {result['pairs']} targets" in output.err
    assert GRAPHONES in output.err
    assert len(result["wrong"]) == min(wrong, 12)
    for example in result["wrong"]:
        assert example["output"] not in example["targets"]
        assert f"{example['source']}: {example['output']}" in output.err


def test_any_listed_target_is_right_and_the_nearest_counts(folder: Path) -> None:
    texts = Dataset(folder / "dataset").parallel
    assert texts is not None
    references = References(texts, "train")
    assert len(references.sources) < len(texts.numbers("train")) == sum(map(len, references.targets))
    last = references.errors([targets[-1] for targets in references.targets])
    assert (last.word_error_rate, last.token_error_rate, last.pair_error_rate) == (0.0, 0.0, 0.0)
    several = max(range(len(references.targets)), key=lambda row: len(references.targets[row]))
    one_wrong = references.errors([[] if row == several else targets[0] for row, targets in enumerate(references.targets)])
    assert one_wrong.word_error_rate == pytest.approx(1 / len(references.sources))
    assert one_wrong.pair_error_rate == pytest.approx(len(references.targets[several]) / len(texts.numbers("train")))
    assert len(references.targets[several]) > 1
    longer = references.errors([[*targets[0], texts.end] for targets in references.targets])
    assert longer.word_error_rate == 1.0
    assert longer.token_error_rate == pytest.approx(len(references.sources) / sum(map(len, references.sources)))


def test_the_loss_is_that_of_each_target_alone(folder: Path) -> None:
    data = Dataset(folder / "dataset")
    texts = data.parallel
    model = load_run(folder / "run", torch.device("cpu"), encoder_decoder=True).model
    assert texts is not None
    assert isinstance(model, EncoderDecoder)
    numbers = texts.numbers("val")[:5]
    together = target_nats(model, texts.batch(numbers), torch.device("cpu"))
    alone = [nats for number in numbers for nats in target_nats(model, texts.batch([number]), torch.device("cpu"))]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert len(together) == texts.target_tokens(numbers)


def test_the_evaluated_loss_is_the_validation_loss_of_the_training(folder: Path, here: Here) -> None:
    result = json.loads(here("evaluate", folder / "run", "--split", "val").out)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["val_loss"] for line in lines if json.loads(line).get("val_loss") is not None]
    assert result["loss"] == pytest.approx(min(losses), abs=1e-4)


def test_an_evaluation_is_read_back_and_one_of_other_weights_is_refused(folder: Path, here: Here, tmp_path: Path) -> None:
    with pytest.raises(MakegptError, match="has not been evaluated; run `evaluate"):
        read_translation_evaluation(folder / "run")
    path = folder / "run" / "evaluation.json"
    here("evaluate", folder / "run", "--split", "test", "-o", path)
    evaluation = read_translation_evaluation(folder / "run")
    assert evaluation.split == "test"
    path.write_text(path.read_text().replace(evaluation.model_sha256, "0" * 64))
    with pytest.raises(MakegptError, match="is of other weights"):
        read_translation_evaluation(folder / "run")
    path.write_text('{"split": "test"}')
    with pytest.raises(MakegptError, match=r"evaluation\.json is damaged"):
        read_translation_evaluation(folder / "run")
    path.unlink()


def test_what_does_not_go_together_is_refused_by_name(folder: Path, here: Here, stage: Stage, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be " * 50)
    assert "--per-token is for models of texts" in here("evaluate", folder / "run", "--per-token", code=2).err
    assert "--text is for models of texts" in here("evaluate", folder / "run", "--text", text, code=2).err
    stage("tokenize", text, "--tokenizer", "bytes", "-o", tmp_path / "tokens")
    stage("build-dataset", tmp_path / "tokens", "-o", tmp_path / "dataset", "--context-length", 8)
    other = here("evaluate", folder / "run", tmp_path / "dataset", code=2).err
    assert "has no parallel texts; use `tokenize --parallel`" in other
    stage(
        "train",
        tmp_path / "dataset",
        "--config",
        "debug",
        "--max-steps",
        1,
        "--set",
        "model.context_length=8",
        "-o",
        tmp_path / "run",
    )
    assert (
        "has parallel texts, which an encoder-decoder reads"
        in here("evaluate", tmp_path / "run", folder / "dataset", code=2).err
    )


def test_greedy_outputs_do_not_depend_on_what_is_in_the_batch(folder: Path) -> None:
    texts = Dataset(folder / "dataset").parallel
    model = load_run(folder / "run", torch.device("cpu"), encoder_decoder=True).model
    assert texts is not None
    assert isinstance(model, EncoderDecoder)
    batch = texts.batch(texts.numbers("val")[:6])
    source, lengths = torch.from_numpy(batch.source), torch.from_numpy(batch.source_lengths)
    together = translations(model, source, lengths, texts.end, 8)
    alone = [
        translations(model, source[row : row + 1, : lengths[row]], lengths[row : row + 1], texts.end, 8)[0] for row in range(6)
    ]
    assert together == alone
    assert math.isfinite(sum(map(len, together)))


def test_texts_longer_than_the_context_are_refused(folder: Path, here: Here, stage: Stage, tmp_path: Path) -> None:
    stage(
        "build-dataset",
        folder / "tokens",
        "-o",
        tmp_path / "long",
        "--config",
        "g2p",
        "--context-length",
        48,
        "--val-fraction",
        0.2,
    )
    refusal = here("evaluate", folder / "run", tmp_path / "long", code=2).err
    assert "has texts of up to 48 tokens, more than the context of" in refusal
    assert "build-dataset --context-length 32" in refusal


@pytest.mark.parametrize("command", [("compare",), ("report",), ("plot", "loss")])
def test_a_page_that_compares_losses_of_texts_names_what_shows_an_encoder_decoder(
    folder: Path, here: Here, command: tuple[str, ...], tmp_path: Path
) -> None:
    output = (
        ("-o", tmp_path / "page.html") if command == ("report",) else ("-o", tmp_path / "page.png") if "plot" in command else ()
    )
    assert "is an encoder-decoder" in here(*command, folder / "run", *output, code=2).err
