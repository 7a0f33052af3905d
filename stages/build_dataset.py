"""Build a dataset from token shards: split them and cut windows."""

from pathlib import Path

import click

from lib.artifact.provenance import timestamp
from lib.config.schema import Config
from stages.shared.command import Stage
from stages.shared.options import config_options, parameter
from stages.shared.streams import say


@click.command("build-dataset", cls=Stage)
@click.argument("tokens", type=click.Path(path_type=Path), metavar="TOKENS")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Output folder for the dataset."
)
@parameter("model.context_length")
@parameter("build-dataset.stride")
@parameter("build-dataset.val_fraction")
@parameter("build-dataset.test_fraction")
@parameter("build-dataset.balance")
@parameter("build-dataset.seed")
@click.option("--strict", is_flag=True, help="Refuse a text that is too long, instead of cutting it or leaving out its pair.")
@config_options()
def main(tokens: Path, output: Path, strict: bool, config: Config) -> None:
    """Split the tokens folder TOKENS into training, validation and test tokens, in this order.

    The training tokens are cut into windows. Without --test-fraction there is no test split. Labeled texts are shuffled first,
    and split by text. Parallel texts are split by source.
    """
    from lib.data.dataset import build_dataset

    manifest = build_dataset(
        tokens,
        output,
        context_length=config.model.context_length,
        stride=config.build_dataset.stride,
        val_fraction=config.build_dataset.val_fraction,
        test_fraction=config.build_dataset.test_fraction,
        balance=config.build_dataset.balance,
        seed=config.build_dataset.seed,
        strict=strict,
        started=timestamp(),
    )
    metadata = manifest.metadata
    if "train_texts" in metadata:
        say(
            f"{output}: {metadata['train_texts']:,} labeled texts for training, {metadata['val_texts']:,} for validation, "
            f"{metadata['test_texts']:,} for test; {metadata['cut_texts']:,} cut to {config.model.context_length} tokens"
        )
        return
    if "train_pairs" in metadata:
        say(
            f"{output}: {metadata['train_pairs']:,} pairs for training, {metadata['val_pairs']:,} for validation, "
            f"{metadata['test_pairs']:,} for test; {metadata['left_out']:,} longer than {config.model.context_length} left out"
        )
        return
    unit = "pairs of at most twice" if "pairs" in metadata else "windows of"
    say(
        f"{output}: {metadata['train_tokens']:,} training tokens in {metadata['windows']:,} {unit} "
        f"{config.model.context_length} + 1, {metadata['val_tokens']:,} validation tokens"
        + (f", {metadata['test_tokens']:,} test tokens" if metadata["test_tokens"] else "")
    )


if __name__ == "__main__":
    main()
