"""A run folder, read back."""

import json
from pathlib import Path

from lib.config.model import GPT_2
from lib.run.folder import CONFIG_FILE, read_model_config


def test_an_option_that_is_younger_than_a_run_is_off_in_it(copied: Path) -> None:
    path = copied / "run" / CONFIG_FILE
    saved = json.loads(path.read_text(encoding="utf-8"))
    config = read_model_config(copied / "run")
    for name in GPT_2:
        assert getattr(config, name) == GPT_2[name]
        del saved["model"][name]
    path.write_text(json.dumps(saved), encoding="utf-8")
    assert read_model_config(copied / "run") == config
