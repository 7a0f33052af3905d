"""params.yaml, its named configs, and `--set`: what they come to, and what is refused."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any, Callable

import pytest

from lib.config.params import config_names, find_params, load_params, resolve_config
from lib.config.schema import SECTIONS, Config, build_config, config_tree
from lib.data.downloads import VOCABULARY, data_folder
from lib.errors import IgnoredFileWarning, MakegptError, UsageError
from tests.conftest import PROJECT, Here

TREE = load_params(PROJECT / "params.yaml")


def resolved(*changes: str, name: str | None = None) -> Config:
    return resolve_config(TREE, name, changes)


def refused(*changes: str, name: str | None = None) -> str:
    """The message with which these changes are refused: one line."""
    with pytest.raises(UsageError) as caught:
        resolved(*changes, name=name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(**parts: Any) -> dict[str, Any]:
    """The tree of params.yaml with other parts."""
    return copy.deepcopy(TREE) | parts


@pytest.mark.parametrize("name", config_names(TREE))
def test_every_shipped_config_resolves_to_what_it_says(name: str) -> None:
    tree = config_tree(resolved(name=name))
    overrides = {section: values for section, values in TREE["configs"][name].items() if section != "extends"}
    assert overrides
    for section, values in overrides.items():
        for key, value in values.items():
            resolved_value = "null" if tree[section][key] is None else tree[section][key]
            assert str(value).lower() == str(resolved_value).lower() or float(value) == resolved_value


def test_a_config_is_like_another_but_for_what_it_says() -> None:
    configs = {
        "plain": {"model": {"n_heads": 2, "emb_dim": 64}, "train": {"seed": 7}},
        "wide": {"extends": "plain", "model": {"emb_dim": 128}},
        "wider": {"extends": "wide", "model": {"emb_dim": 256}},
    }
    config = resolve_config(changed(configs=configs), "wider")
    assert (config.model.n_heads, config.model.emb_dim, config.train.seed) == (2, 256, 7)
    assert config.model.n_layers == resolved().model.n_layers


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"a": {"extends": "debgu"}, "debug": {}}, "configs.a: extends: 'debgu' is unknown; did you mean 'debug'?"),
        ({"a": {"extends": "b"}, "b": {"extends": "a"}}, "configs.a extends itself: a extends b extends a"),
        ({"a": {"extends": "a"}}, "configs.a extends itself: a extends a"),
        ({"a": {"extends": ["b", "c"]}}, "configs.a: extends must be the name of a config, not ['b', 'c']"),
        ({"a": {"extends": {"model": "b"}}}, "configs.a: extends must be the name of a config, not {'model': 'b'}"),
    ],
)
def test_a_config_that_extends_nothing_or_itself_is_refused(configs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_config(changed(configs=configs), "a")
    assert str(caught.value) == message


def test_the_configs_of_the_design_are_shipped() -> None:
    assert {"gpt_real", "gpt_demo", "gpt_deep", "gpt_balanced", "gpt2_small", "gpt2_xl", "decoder", "debug"} <= {
        *config_names(TREE)
    }


def test_a_config_overrides_the_defaults_and_a_change_overrides_both() -> None:
    tree = changed(configs={"mine": {"train": {"max_steps": "60"}}})
    tree["defaults"]["train"] |= {"max_steps": "120", "seed": "5"}
    assert resolve_config(tree).train.max_steps == 120
    assert resolve_config(tree, "mine").train.max_steps == 60
    assert resolve_config(tree, "mine", ["train.max_steps=7", "train.max_steps=8"]).train.max_steps == 8
    assert resolve_config(tree, "mine").train.seed == 5


def test_resolving_leaves_the_tree_as_it_was() -> None:
    before = copy.deepcopy(TREE)
    resolved("train.max_steps=7", name="debug")
    assert before == TREE


def test_the_resolved_config_survives_json() -> None:
    config = resolved(name="gpt_deep")
    assert build_config(json.loads(json.dumps(config_tree(config))), "saved") == config


@pytest.mark.parametrize("section", SECTIONS)
def test_every_parameter_has_a_help_text_and_a_default(section: str) -> None:
    for field in dataclasses.fields(SECTIONS[section]):
        assert len(field.metadata["help"]) > 10, field.name
        assert field.name in TREE["defaults"][section], field.name


def test_an_unknown_config_names_the_nearest() -> None:
    assert "did you mean 'gpt_balanced'?" in refused(name="gpt_balancd")


def test_an_unknown_config_far_from_all_names_them_all() -> None:
    message = refused(name="zzzzzzzz")
    assert all(name in message for name in config_names(TREE))


@pytest.mark.parametrize(
    ("change", "nearest"),
    [
        ("trian.max_steps=3", "'train'"),
        ("train.max_step=3", "'max_steps'"),
        ("train.learning-rate=3", "'learning_rate'"),
        ("model.n_head=4", "'n_heads'"),
        ("build_dataset.stride=4", "'build-dataset'"),
        ("tokenize.tokenizer=gpt3", "'gpt2'"),
        ("evaluate.split=vall", "'val'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(change: str, nearest: str) -> None:
    message = refused(change)
    assert f"did you mean {nearest}?" in message
    assert change.partition("=")[0].split(".")[1 if nearest not in ("'train'", "'build-dataset'") else 0] in message


@pytest.mark.parametrize("part", ["defaults", "configs"])
def test_an_unknown_name_in_the_file_is_refused_with_its_place(part: str) -> None:
    wrong = {"train": {"max_stepz": "3"}}
    parts = {"defaults": TREE["defaults"] | {"train": TREE["defaults"]["train"] | wrong["train"]}, "configs": {"mine": wrong}}
    with pytest.raises(UsageError, match=r"train\.max_stepz; did you mean 'max_steps'\?"):
        resolve_config(changed(**{part: parts[part]}), "mine" if part == "configs" else None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("train.max_steps=many", "an integer"),
        ("train.max_steps=1.5", "an integer"),
        ("train.max_steps=null", "an integer"),
        ("train.max_steps=", "an integer"),
        ("build-dataset.stride=x", "an integer or null"),
        ("train.learning_rate=fast", "a number"),
        ("train.learning_rate=nan", "a number"),
        ("train.learning_rate=inf", "a number"),
        ("train.learning_rate=1e400", "a number"),
        ("model.qkv_bias=maybe", "true or false"),
        ("model.qkv_bias=1", "true or false"),
    ],
)
def test_a_wrong_type_is_refused_with_the_right_one(change: str, says: str) -> None:
    message = refused(change)
    assert f"must be {says}" in message
    assert f"{change} must be" in message


@pytest.mark.parametrize(
    ("change", "span"),
    [
        ("train.max_steps=0", "at least 1"),
        ("train.learning_rate=-1e-9", "at least 0"),
        ("model.drop_rate=1", "between 0 and 0.999"),
        ("model.n_layers=-1", "between 1 and 4096"),
        ("train.batch_size=-1", "at least 1"),
        ("build-dataset.val_fraction=1.0", "between 1e-09 and 0.999"),
        ("build-dataset.test_fraction=1.0", "between 0 and 0.999"),
        ("build-dataset.stride=0", "at least 1"),
        ("train.seed=9223372036854775808", "between 0 and 9223372036854775807"),
        ("evaluate.ngram_order=9", "between 1 and 8"),
        ("generate.temperature=-0.1", "between 0 and 1000000"),
        ("generate.top_p=0", "greater than 0 and at most 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_range(change: str, span: str) -> None:
    message = refused(change)
    assert f"{change} must be {span}" in message


def test_splits_that_leave_nothing_for_training_are_refused() -> None:
    assert (
        "build-dataset.val_fraction=0.1 and build-dataset.test_fraction=0.9 add up to 1.0, which leaves nothing for training; "
        "their sum must be less than 1"
    ) in refused("build-dataset.test_fraction=0.9")


@pytest.mark.parametrize("change", ["train.max_steps=1e5000", "generate.top_k=1e30000", "train.learning_rate=1e5000"])
def test_a_number_beyond_all_measure_is_refused(change: str) -> None:
    assert change in refused(change)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("train.learning_rate=3e-4", 0.0003),
        ("train.learning_rate=1", 1.0),
        ("train.max_steps=1e4", 10_000),
        ("train.max_steps=20.0", 20),
        ("train.seed=9223372036854775807", 2**63 - 1),
        ("train.weight_decay=0", 0.0),
        ("build-dataset.stride=null", None),
        ("build-dataset.stride=~", None),
        ("generate.top_k=null", None),
        ("generate.prompt=null", None),
        ("generate.prompt=To be, or = not", "To be, or = not"),
        ("generate.prompt= To be ", " To be "),
        ("generate.prompt= ", " "),
        ("plot.prompt=\tThe cat\n", "\tThe cat\n"),
        ("build-dataset.stride= null ", None),
        ("evaluate.split = val ", "val"),
        ("model.qkv_bias= yes", True),
        ("model.qkv_bias=yes", True),
        ("model.qkv_bias=no", False),
        ("model.tie_weights=True", True),
        (" train.max_steps = 5 ", 5),
    ],
)
def test_a_value_is_read_as_its_parameters_type(change: str, value: Any) -> None:
    section, _, key = change.partition("=")[0].strip().partition(".")
    result = config_tree(resolved(change))[section][key]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize("change", ["train.max_steps", "max_steps=3", "train=3", "=3", "", "train.=3", ".max_steps=3"])
def test_a_change_that_is_not_section_key_value_is_refused(change: str) -> None:
    message = refused(change)
    assert "section.key=value" in message or "unknown section" in message


def test_a_width_that_the_heads_do_not_divide_is_refused_with_ones_that_they_do() -> None:
    message = refused("model.emb_dim=100", "model.n_heads=12")
    assert "model.emb_dim=100" in message
    assert "use 96 or 108" in message
    assert resolved("model.emb_dim=96", "model.n_heads=12").model.emb_dim == 96
    assert resolved("model.emb_dim=108", "model.n_heads=12").model.emb_dim == 108


def test_a_batch_that_the_pieces_do_not_divide_is_refused() -> None:
    message = refused("train.batch_size=6", "train.grad_accum_steps=4")
    assert "train.batch_size=6" in message
    assert "train.grad_accum_steps=4" in message
    assert resolved("train.batch_size=6", "train.grad_accum_steps=3").train.grad_accum_steps == 3


def test_impossible_combinations_are_refused_when_resolved_not_before() -> None:
    assert resolved("model.emb_dim=99", "model.n_heads=9", name="gpt_real").model.n_heads == 9


def test_a_missing_parameter_is_refused_by_name() -> None:
    defaults = copy.deepcopy(TREE["defaults"])
    del defaults["train"]["beta2"]
    with pytest.raises(UsageError, match=r"train\.beta2 is missing"):
        resolve_config(changed(defaults=defaults))


@pytest.mark.parametrize(
    "parts",
    [
        {"configs": {"mine": {"train": "fast"}}},
        {"configs": {"mine": "fast"}},
        {"configs": {"mine": {"train": {"max_steps": {"a": "1"}}}}},
        {"configs": {"mine": {"evaluate": {"split": "val"}}}, "defaults": TREE["defaults"] | {"evaluate": ""}},
    ],
)
def test_a_section_that_is_no_mapping_or_a_value_that_is_one_is_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        resolve_config(changed(**parts), "mine")


def test_a_config_that_changes_nothing_is_the_defaults() -> None:
    assert resolve_config(changed(configs={"plain": ""}), "plain") == resolved()


def test_configs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved().train.max_steps = 3  # type: ignore[misc]


def test_an_unknown_top_level_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("default:\n  train:\n    seed: 1\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"unknown key 'default'; did you mean 'defaults'\?"):
        load_params(path)


def test_a_top_level_part_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("configs: many\n", encoding="utf-8")
    with pytest.raises(UsageError, match="configs must be a mapping, not 'many'"):
        load_params(path)


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"# caf\xe9\n")
    with pytest.raises(MakegptError, match="byte 5 is not UTF-8"):
        load_params(path)


def test_params_yaml_is_found_here_before_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_params().resolve() == (PROJECT / "params.yaml").resolve()
    (tmp_path / "params.yaml").write_text("configs:\n  mine:\n", encoding="utf-8")
    assert config_names(load_params()) == ["mine"]


DVC = "prepare:\n  split: 0.2\ntrain:\n  seed: 1\n"


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        (DVC, False),
        ("", False),
        ("- a list\n", False),
        ("defaults:\n  - override /db: mysql\nseed: 1\n", False),
        ("inputs: [a, b]\nstages:\n  train: x\n", False),
        ("configs:\n  mine:\n", True),
        ("defaults:\n  train:\n    seed: 1\nconfgs:\n", True),
        ("# mine\n\ndefaults: {train: {seed: 1}}\n", True),
        ("defaults:\n  # first\n\n  'build-dataset':\n    stride: [\n", True),
    ],
)
def test_a_params_yaml_of_another_program_is_ignored_with_a_warning(
    text: str, ours: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    if ours:
        assert find_params() == Path("params.yaml"), "its errors are reported"
    else:
        with pytest.warns(
            IgnoredFileWarning,
            match=r"ignoring params.yaml of another program .*; using .*params\.yaml; choose a file with --params",
        ):
            assert find_params() == PROJECT / "params.yaml"


def unwrapped(text: str) -> str:
    """A help text on one line."""
    return " ".join(text.split())


def test_a_params_yaml_that_is_named_is_taken_whatever_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Here
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(DVC, encoding="utf-8")
    own = (PROJECT / "params.yaml").read_text(encoding="utf-8").replace("temperature: 0.8", "temperature: 0.25")
    (tmp_path / "own.yaml").write_text(own, encoding="utf-8")
    assert "unknown key 'prepare'" in here("plot", "mask", "-o", "a.svg", "--params", "params.yaml", code=2).err
    assert "nowhere is missing" in here("plot", "mask", "-o", "a.svg", "--params", "nowhere", code=1).err
    assert "[default: 0.25]" in unwrapped(here("generate", "--params", "own.yaml", "--help").out)
    notice = here("plot", "mask", "--config", "debug", "-o", "a.svg").err.splitlines()[0]
    assert notice == (
        f"ignoring params.yaml of another program in this folder; using {PROJECT}/params.yaml; choose a file with --params"
    )
    assert here("plot", "mask", "--config", "debug", "-o", "a.svg", "--quiet").err == ""
    monkeypatch.setenv("MAKEGPT_PARAMS", "own.yaml")
    assert "[default: 0.25]" in unwrapped(here("generate", "--help").out)
    assert "[default: 0.8]" in unwrapped(here("generate", "--params", PROJECT / "params.yaml", "--help").out)


def test_a_data_folder_of_another_program_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: Callable[[str], Path]
) -> None:
    fetched("gpt2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert data_folder(VOCABULARY) == PROJECT / "data"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "DATASET", "-o", "RUN", "--config", "debug", "--max-steps", "3", "--set", "train.max_steps=0"],
        ["train", "DATASET", "-o", "RUN", "--config", "debug", "--set", "train.seed = 2", "--seed", "3"],
        ["build-dataset", "TOKENS", "-o", "DATASET", "--set", "model.context_length=8", "--context-length", "9"],
        ["tokenize", "-o", "TOKENS", "x.txt", "--tokenizer", "char", "--set", "tokenize.tokenizer=word"],
        ["generate", "RUN", "To be", "--set", "generate.prompt=Or not"],
    ],
)
def test_two_values_for_one_parameter_are_refused(words: list[str], tmp_path: Path, here: Here) -> None:
    assert "set the same parameter to different values; keep one" in here(*words, code=2).err
