"""A finished run, read once: what `plot`, `report`, `compare` and the summary show of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lib.artifact.manifest import Manifest
from lib.config.model import ModelConfig
from lib.errors import UsageError
from lib.evaluate.results import Evaluation, read_evaluation
from lib.run.folder import EVALUATION_FILE, SAMPLE_FILE, finished_manifest, is_imported, read_model_config
from lib.run.metrics import METRICS_FILE, StepMetrics, read_metrics, training_seconds
from lib.run.samples import Sample, read_samples


@dataclass(frozen=True)
class RunView:
    """The finished run in `folder`. Each file is read when it is first asked for, once; None if there is none yet."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def manifest(self) -> Manifest:
        manifest = finished_manifest(self.folder)
        if manifest.parameters.get("classes"):
            raise UsageError(
                f"{self.folder} is a classifier, whose accuracy is not compared with losses of tokens; "
                f"see it with `evaluate {self.folder}` and `plot classes {self.folder}`"
            )
        if read_model_config(self.folder).has_encoder:
            raise UsageError(
                f"{self.folder} is an encoder-decoder, whose error rates are not compared with losses of texts; "
                f"see it with `evaluate {self.folder}` and `plot attention {self.folder} --prompt SOURCE`"
            )
        return manifest

    @property
    def metadata(self) -> dict[str, Any]:
        """The `metadata` of its manifest: parameters, tokenizer, dataset, published_step, published_val_loss."""
        metadata: dict[str, Any] = self.manifest.metadata
        return metadata

    @property
    def imported(self) -> bool:
        return is_imported(self.manifest)

    @cached_property
    def model_config(self) -> ModelConfig:
        return read_model_config(self.folder)

    @cached_property
    def metrics(self) -> list[StepMetrics] | None:
        return read_metrics(self.folder) if (self.folder / METRICS_FILE).is_file() else None

    @cached_property
    def seconds(self) -> float | None:
        """Seconds of training."""
        return training_seconds(self.folder)

    @cached_property
    def samples(self) -> list[Sample]:
        return read_samples(self.folder)

    @cached_property
    def sample(self) -> str | None:
        """The text that the finished model wrote."""
        path = self.folder / SAMPLE_FILE
        return path.read_bytes().decode("utf-8", "replace") if path.is_file() else None

    @cached_property
    def evaluation(self) -> Evaluation | None:
        has_one = bool(self.manifest) and (self.folder / EVALUATION_FILE).is_file()  # a classifier's is another
        return read_evaluation(self.folder) if has_one else None

    @property
    def validation(self) -> Evaluation | None:
        """Its evaluation, if that is on the text of its validation losses: only then can the two be compared."""
        evaluation = self.evaluation
        return evaluation if evaluation and evaluation.is_of_validation(self.metadata) else None

    @property
    def other_split(self) -> str | None:
        """What its evaluation is about, in words, if that is not the text of its validation losses; else None."""
        evaluation = self.evaluation
        if evaluation is None or evaluation.is_of_validation(self.metadata):
            return None
        own = evaluation.dataset == self.metadata.get("dataset")
        return f"its {evaluation.split} split" if own else f"the {evaluation.split} split of another dataset"

    def required_evaluation(self) -> Evaluation:
        """Its evaluation; MakegptError says how to make it."""
        return self.evaluation or read_evaluation(self.folder)
