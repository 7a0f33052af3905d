"""A run to its loss, perplexity and bits a byte, beside counted baselines."""

import json
from pathlib import Path

import click

from lib import artifact
from lib.config import Config
from stages import Weights, device_option, output_file_option, stage, weights_option
from stages.shared.progress import progress


@stage("evaluate", evaluate=("split", "ngram_order"))
@click.argument("folder", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("dataset", type=click.Path(path_type=Path), required=False, metavar="[DATASET]")
@weights_option
@output_file_option
@device_option
def main(folder: Path, dataset: Path | None, weights: Weights, output: Path | None, device_name: str, config: Config) -> None:
    """Evaluate the run folder RUN on a split of DATASET, its own where none is named: one JSON object.

    Losses are in nats a token; uniform guessing and n-grams counted on the training split stand beside the model.
    """
    from lib import assessment, device, packed, run
    from lib.dataset import Dataset

    device.keep_freed_memory()
    chosen = device.choose(device_name)
    trained = run.load(folder, chosen, weights.saved)
    if weights.format != "float32":
        packed.pack(trained.model, weights.format)
    data = Dataset(dataset or run.dataset_folder(folder))
    with progress(data.predicted(config.evaluate.split), "tokens") as shown:
        result = assessment.assess(folder, trained, data, config.evaluate, chosen, shown.advance)
    if output is None or str(output) == "-":
        click.echo(json.dumps(result, indent=2, allow_nan=False))
    else:
        artifact.write_json(output, result)


if __name__ == "__main__":
    main()
