"""A dataset to a run: the model, trained."""

import json
import re
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import click

from lib import provenance
from lib.config import Config
from lib.errors import UsageError
from stages import device_option, progress, say, stage


def _seconds(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """The time `value`, such as 90s, 10m or 2h, in seconds; a bare number is seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no time; 90s, 10m or 2h would do")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@stage("train", config="required", train=("max_steps", "seed"))
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN", help="The run folder to make or go on with.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Go on where a run was left, or begin anew.",
)
@click.option(
    "--stop-after", callback=_seconds, metavar="TIME", help="Stop after the step in which TIME runs out: 90s, 10m or 2h."
)
@device_option
@click.option("--plan", is_flag=True, help="Print what it would cost, as JSON; train nothing.")
def main(
    dataset: Path,
    output: Path | None,
    resume: str,
    stop_after: float | None,
    device_name: str,
    plan: bool,
    config: Config,
) -> None:
    """Train a model on the dataset folder DATASET, into the run folder RUN.

    The weights that did best on the validation split become RUN/model.safetensors. Interrupted, it saves its state;
    the same command goes on there and ends with the same bytes.
    """
    started, began = provenance.now(), time.monotonic()
    if output is None and not plan:
        raise UsageError("give -o RUN, the folder to train in, or --plan")

    from lib import cost, device, training
    from lib.dataset import Dataset
    from lib.trainer import Record

    device.keep_freed_memory()
    data = Dataset(dataset)
    chosen = device.choose(device_name)
    if plan:
        model_config = training.fit_vocabulary(config.model, data.tokens.load_tokenizer())
        click.echo(json.dumps(cost.plan(model_config, config.train, chosen, data.val_tokens), indent=2))
        return
    assert output is not None
    stop = _StopSignal()

    def stop_asked() -> bool:
        return stop.asked() or (stop_after is not None and time.monotonic() - began >= stop_after)

    events = training.train(
        output, data, config.model, config.train, chosen, resume=resume == "auto", started=started, stop_asked=stop_asked
    )
    with stop.caught(), progress(config.train.max_steps, "steps") as shown:
        for event in events:
            match event:
                case training.Notice(text):
                    shown.note(text)
                case training.Begun(step):
                    shown.begin(step)
                case Record(step=step, train_loss=train_loss, val_loss=val_loss):
                    if val_loss is not None:
                        shown.note(f"step {step}: validation loss {val_loss:.4f}")
                    if train_loss is not None:
                        shown.advance(1, f"training loss {train_loss:.3f}")
                case training.Stopped(step):
                    shown.note(f"stopped after step {step}; the same command goes on from there")
                    if stop.asked():
                        sys.exit(128 + stop.number)


class _StopSignal:
    """SIGINT or SIGTERM: noted the first time, to be obeyed after the step; the second time it acts at once."""

    number = 0

    def asked(self) -> bool:
        return self.number > 0

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note the signals while the block runs."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        say("stopping after this step; once more to stop at once")


if __name__ == "__main__":
    main()
