"""Adapters in PEFT's files: PEFT computes with ours what we do, and we with its own; an adapter of another model is refused."""

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.errors import MakegptError, UsageError
from lib.huggingface.convert import export_weights
from lib.huggingface.peft_export import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, export_adapter
from lib.huggingface.peft_import import import_adapter
from lib.run.folder import MODEL_FILE, load_run
from tests.conftest import Here
from tests.train.test_initial_weights import train
from tests.train.test_loop import CPU, config

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own, about transformers

LLAMA = {"positions": "rotary", "norm": "rms", "feed_forward": "swiglu", "out_bias": False}
DESIGNS: dict[str, dict[str, Any]] = {
    "gpt2": {"qkv_bias": True},
    "llama": LLAMA | {"n_kv_heads": 1, "tie_weights": True},
    "qwen3": LLAMA | {"qk_norm": True, "head_dim": 8},
}
Runs = Callable[..., tuple[Path, Path]]
IDS = torch.randint(0, 200, (2, 20), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def peft(transformers: Any) -> Any:
    return pytest.importorskip("peft", reason="peft is not installed: make setup EXTRAS=dev,parity")


@pytest.fixture(scope="module")
def runs(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """runs("llama", "query,value"): a base of that design, and a run that has trained adapters of it."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(design: str, targets: str = "all") -> tuple[Path, Path]:
        base, tuned = folder / design, folder / f"{design}-{targets}"
        train(base, small / "dataset", config(max_steps=3), None, **DESIGNS[design])
        adapters = {"finetune": "lora", "learning_rate": 0.1, "lora_rank": 3, "lora_targets": targets}
        train(tuned, small / "dataset", config(max_steps=5, **adapters), base, **DESIGNS[design])
        return base, tuned

    return trained


def logits(run: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_run(run, CPU).model(IDS)


def from_pretrained(peft: Any, transformers: Any, base: Path, adapter: Path) -> Any:
    return peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter).eval()


@pytest.mark.parametrize(
    ("design", "targets"),
    [("gpt2", "all"), ("gpt2", "value,out"), ("llama", "all"), ("llama", "query,value"), ("qwen3", "key,gate")],
)
def test_peft_computes_with_our_adapters_what_the_merged_run_does(
    runs: Runs, peft: Any, transformers: Any, here: Here, tmp_path: Path, design: str, targets: str
) -> None:
    base, tuned = runs(design, targets)
    here("export-weights", base, "-o", tmp_path / "base")
    assert "adapters with" in here("export-weights", tuned, "-o", tmp_path / "adapter", "--to", "peft").err
    theirs = from_pretrained(peft, transformers, tmp_path / "base", tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(tuned), rtol=1e-4, atol=1e-4)
        merged = theirs.merge_and_unload()(IDS).logits
    torch.testing.assert_close(merged, logits(tuned), rtol=1e-4, atol=1e-4)
    assert (logits(tuned) - logits(base)).abs().max() > 0.1


@pytest.mark.parametrize("design", DESIGNS)
def test_an_exported_adapter_is_read_back_to_the_run_it_is_from(runs: Runs, here: Here, tmp_path: Path, design: str) -> None:
    base, tuned = runs(design)
    export_adapter(tuned, tmp_path / "adapter", started="now")
    here("import-weights", tmp_path / "adapter", "--base", base, "-o", tmp_path / "back")
    torch.testing.assert_close(logits(tmp_path / "back"), logits(tuned), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def theirs(
    runs: Runs, peft: Any, transformers: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Path, Any]]:
    """theirs("llama", r=4): a base run, the folder of an adapter of PEFT's with random matrices, and PEFT's model."""

    def make(design: str, **settings: Any) -> tuple[Path, Path, Any]:
        base, _ = runs(design)
        folder = tmp_path_factory.mktemp("theirs")
        export_weights(base, folder / "base", started="now")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
        defaults = {"r": 4, "lora_alpha": 16, "fan_in_fan_out": design == "gpt2", "task_type": "CAUSAL_LM"}
        model = peft.get_peft_model(model, peft.LoraConfig(**(defaults | settings))).eval()
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.2, generator=generator)
        model.save_pretrained(folder / "adapter", save_embedding_layers=False)
        return base, folder / "adapter", model

    return make


@pytest.mark.parametrize(
    ("design", "settings"),
    [
        ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
        ("llama", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
        (
            "qwen3",
            {"target_modules": ["q_proj", "o_proj", "lm_head"], "rank_pattern": {"o_proj": 2}, "alpha_pattern": {"q_proj": 3}},
        ),
    ],
)
def test_an_adapter_of_pefts_is_merged_to_the_logits_it_gives(
    theirs: Any, here: Here, tmp_path: Path, design: str, settings: dict[str, Any]
) -> None:
    base, adapter, model = theirs(design, **settings)
    here("import-weights", adapter, "--base", base, "-o", tmp_path / "run")
    with torch.no_grad():
        torch.testing.assert_close(logits(tmp_path / "run"), model(IDS).logits, rtol=1e-4, atol=1e-4)
    assert (logits(tmp_path / "run") - logits(base)).abs().max() > 0.1


def test_an_adapter_of_another_model_is_refused(runs: Runs, tmp_path: Path) -> None:
    _, tuned = runs("llama")
    export_adapter(tuned, tmp_path / "adapter", started="now")
    with pytest.raises(MakegptError, match="is an adapter of another model: its base_sha256 is not that of"):
        import_adapter(tmp_path / "adapter", tuned, tmp_path / "run", started="now")
    path = tmp_path / "adapter" / ADAPTER_WEIGHTS_FILE
    save_file(load_file(path), path)  # without the hash, only names and shapes tell
    for other, message in [("gpt2", "adapts no linear layer of the model in"), ("qwen3", "another model: .* is .*, but A is")]:
        with pytest.raises(MakegptError, match=message):
            import_adapter(tmp_path / "adapter", runs(other)[0], tmp_path / "run", started="now")
    assert not (tmp_path / "run").exists()


def change_config(adapter: Path, **changes: Any) -> None:
    saved = json.loads((adapter / ADAPTER_CONFIG_FILE).read_text())
    (adapter / ADAPTER_CONFIG_FILE).write_text(json.dumps(saved | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora=True is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.* is not supported; it must be"),
        ({"bias": "all"}, "bias=all is not supported; it must be none"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa is not supported"),
        ({"peft_type": "IA3"}, "peft_type=IA3 is not supported; it must be LORA"),
        ({"r": 5}, "says rank 5 of .*, but its tensors have rank 3"),
        ({"lora_alpha": "x"}, "lora_alpha=x must be a number greater than 0"),
        ({"r": None}, "lacks r"),
        ({"alpha_pattern": {"(a+)+$": 2}}, r"the pattern \(a\+\)\+\$ is not supported"),
        ({"rank_pattern": [1]}, "its patterns must be objects"),
    ],
)
def test_what_is_more_than_lora_or_damaged_is_refused_by_key(
    runs: Runs, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    base, tuned = runs("llama", "query,value")
    export_adapter(tuned, tmp_path / "adapter", started="now")
    change_config(tmp_path / "adapter", **changes)
    with pytest.raises(MakegptError, match=message):
        import_adapter(tmp_path / "adapter", base, tmp_path / "run", started="now")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("embed_tokens.lora_embedding_A", torch.zeros(3, 4), "lora_embedding_A adapts no linear layer"),
        ("layers.0.self_attn.k_proj.lora_A.weight", torch.zeros(3, 32), "k_proj lacks lora_B"),
        ("layers.0.self_attn.q_proj.lora_A.weight", torch.full((3, 32), torch.nan), "q_proj has numbers that are not finite"),
    ],
)
def test_tensors_that_cannot_be_merged_are_refused_by_name(
    runs: Runs, tmp_path: Path, name: str, tensor: torch.Tensor, message: str
) -> None:
    base, tuned = runs("llama", "query,value")
    export_adapter(tuned, tmp_path / "adapter", started="now")
    path = tmp_path / "adapter" / ADAPTER_WEIGHTS_FILE
    save_file(load_file(path) | {f"base_model.model.model.{name}": tensor}, path)
    with pytest.raises(MakegptError, match=message):
        import_adapter(tmp_path / "adapter", base, tmp_path / "run", started="now")


def test_a_run_without_adapters_has_none_to_export(runs: Runs, tmp_path: Path) -> None:
    base, _ = runs("llama", "query,value")
    with pytest.raises(MakegptError, match=r"has no adapters, which a training with train\.finetune=lora learns; use --to hf"):
        export_adapter(base, tmp_path / "adapter", started="now")


def test_the_base_is_not_replaced_by_the_merged_model(runs: Runs, tmp_path: Path) -> None:
    base, tuned = runs("llama", "query,value")
    here = Path(shutil.copytree(base, tmp_path / "base"))
    export_adapter(tuned, tmp_path / "adapter", started="now")
    with pytest.raises(UsageError, match="holds a run that was trained here; choose another -o"):
        import_adapter(tmp_path / "adapter", here, here, started="now")
    assert (here / MODEL_FILE).is_file()
