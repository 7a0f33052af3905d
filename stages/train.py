"""A dataset to a run: the model, trained."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lib.artifact.provenance import timestamp
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.options import config_options, device_option, parameter
from stages.shared.progress import format_duration, progress
from stages.shared.stopping import StopSignal, parse_duration
from stages.shared.streams import say, set_quiet

if TYPE_CHECKING:
    from lib.run.metrics import StepMetrics, Timing


@click.command("train", cls=Stage)
@click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="RUN", help="Run folder to create or resume.")
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Start from the weights of this finished or imported run  [default: random weights]",
)
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Resume an unfinished run, or start over.",
)
@click.option(
    "--stop-after",
    callback=parse_duration,
    metavar="TIME",
    help="Stop after this duration, at the end of a step: 90s, 10m or 2h.",
)
@device_option
@click.option("--plan", is_flag=True, help="Print the estimated time and memory as JSON; do not train.")
@parameter("train.task")
@parameter("train.finetune")
@parameter("train.max_steps")
@parameter("train.seed")
@config_options(required=True)
def main(
    dataset: Path,
    output: Path | None,
    init_from: Path | None,
    resume: str,
    stop_after: float | None,
    device_name: str,
    plan: bool,
    config: Config,
) -> None:
    """Train a model on the dataset folder DATASET, into the run folder RUN.

    The weights of the last step become RUN/model.safetensors (train.publish=best: those with the lowest validation
    loss). An interrupted training saves a checkpoint; the same command resumes it and ends with the same bytes.
    `torchrun --nproc-per-node N -m stages.train …` trains with N processes, which divide every batch.
    """
    started, began = timestamp(), time.monotonic()
    if output is None and not plan:
        raise UsageError("give -o RUN, the folder to train in, or --plan")

    from lib.data.dataset import Dataset
    from lib.device.distributed import init_distributed
    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.run.metrics import StepMetrics
    from lib.train.estimate import WORTHWHILE_SPEEDUP, estimate_training
    from lib.train.events import Logged, Notice, Stopped
    from lib.train.session import fit_vocabulary, train_run

    keep_freed_memory()
    data = Dataset(dataset)
    chosen = choose_device(device_name)
    if plan and (data.labeled or data.has_pairs or config.train.task != "text"):
        other = "labeled texts" if data.labeled else "pairs of answers" if data.has_pairs else f"--task {config.train.task}"
        raise UsageError(f"--plan estimates a training on windows of text, and this one is on {other}; leave it out")
    if plan:
        model_config = fit_vocabulary(config.model, data.tokens.load_tokenizer())
        estimate = estimate_training(model_config, config.train, chosen, data.val_tokens, len(data.train_ids()))
        click.echo(json.dumps(estimate, indent=2))
        if (speedup := estimate["bfloat16_speedup"]) >= WORTHWHILE_SPEEDUP:
            say(f"with --set train.precision=bfloat16 this processor would be {speedup:.1f} times as fast")
        return
    assert output is not None
    stop = StopSignal()

    def stop_asked() -> bool:
        return stop.asked() or (stop_after is not None and time.monotonic() - began >= stop_after)

    with init_distributed(chosen) as group, stop.caught(), ExitStack() as stack:
        if not group.is_main:
            set_quiet()
        bar = stack.enter_context(progress(config.train.max_steps, "steps"))
        events = train_run(
            output,
            data,
            config.model,
            config.train,
            chosen,
            resume=resume == "auto",
            started=started,
            stop_asked=stop_asked,
            init_from=init_from,
            group=group,
        )
        for event in events:
            match event:
                case Notice(text):
                    bar.note(text)
                case StepMetrics(step=0, val_loss=val_loss):
                    bar.note(f"step 0/{config.train.max_steps:,} | val {val_loss:.4f}")
                case Logged(metrics, timing, seconds_left):
                    bar.done = metrics.step
                    tell = bar.show if metrics.val_loss is None else bar.note
                    tell(_line(metrics, timing, config.train.max_steps, seconds_left))
                case Stopped(step):
                    bar.note(f"stopped after step {step}; the same command resumes")
                    if stop.asked():
                        sys.exit(128 + stop.number)


def _line(metrics: "StepMetrics", timing: "Timing", max_steps: int, seconds_left: float) -> str:
    """All that is known after a step, in one line."""
    parts = [
        f"step {metrics.step:,}/{max_steps:,}",
        f"loss {metrics.train_loss:.4f}",
        *([] if metrics.val_loss is None else [f"val {metrics.val_loss:.4f}"]),
        *(f"{name} {value:.3f}" for name, value in metrics.values.items()),
        f"lr {metrics.lr:.1e}",
        f"grad {metrics.grad_norm:.2f}",
        f"tok/s {timing.tokens_per_second:,.0f}",
        f"mfu {timing.mfu:.0%}",
        f"mem {timing.memory / 1e9:.2f}G",
        f"eta {format_duration(seconds_left)}",
    ]
    return " | ".join(parts)


if __name__ == "__main__":
    main()
