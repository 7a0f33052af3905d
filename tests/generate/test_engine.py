"""Generation: filters against transformers, the cached loop against the naive one, batches against single texts."""

import itertools
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.config.schema import GenerateConfig
from lib.errors import MakegptError
from lib.generate import kernel
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_naive, generate_tokens
from lib.generate.kernel import load_kernel
from lib.generate.linear import KERNEL_FORMATS, QuantizedLinear
from lib.generate.quantize import WEIGHT_FORMATS, InferenceModel
from lib.generate.request import Request, StreamDecoder, complete, encode_prompt, in_request_order, make_requests, stream_text
from lib.generate.sampling import apply_repetition_penalty, keep_min_p, keep_top_k, keep_top_p, sample_token, temperature_scaled
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.registry import build_model
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.registry import make_tokenizer
from tests.conftest import FEW, Here, Stage

CPU = torch.device("cpu")
TREE = load_params()
GREEDY = replace(resolve_config(TREE, "debug", ["generate.temperature=0"]).generate, max_new_tokens=40)
WARM = replace(GREEDY, temperature=1.0, top_k=None)
BYTES = make_tokenizer("bytes", [], Path())

#: GPT-2's design, and a config for each option that the KV cache and the kernel support.
DESIGNS = {
    "gpt2": [],
    "tied, biases": ["model.tie_weights=true", "model.qkv_bias=true"],
    "rotary": ["model.positions=rotary"],
    "sinusoidal": ["model.positions=sinusoidal"],
    "rms, swiglu": ["model.norm=rms", "model.feed_forward=swiglu"],
    "grouped, normed": ["model.n_heads=4", "model.n_kv_heads=2", "model.qk_norm=true", "model.positions=rotary"],
    "window": ["model.window=5"],
    "strided": ["model.window=5", "model.attention_pattern=strided"],
    "fixed": ["model.window=5", "model.attention_pattern=fixed", "model.summary_tokens=2", "model.positions=rotary"],
    "narrow": ["model.window=2", "model.attention_pattern=fixed"],  # less than a quarter of the scores: computed in blocks
    "llama": [
        "model.positions=rotary",
        "model.norm=rms",
        "model.feed_forward=swiglu",
        "model.rope_base=5e5",
        "model.rope_factor=8",
        "model.rope_original_context=16",
        "model.head_dim=18",
        "model.ff_dim=40",
        "model.out_bias=false",
        "model.norm_eps=1e-3",
    ],
    "n-grams": ["model.ngram_order=4", "model.ngram_rows=100"],
    "n-grams, rotary": ["model.ngram_order=3", "model.ngram_rows=1000", "model.positions=rotary", "model.norm=rms"],
    "odd": ["model.emb_dim=42", "model.n_heads=3"],  # no multiple of a processor's vector length
    "single_block": ["model.kind=single_block", "model.n_layers=1"],
    "multi_head": ["model.kind=multi_head", "model.n_layers=1"],
    "single_head": ["model.kind=single_head", "model.n_layers=1", "model.n_heads=1"],
    "bigram": ["model.kind=bigram", "model.n_layers=1", "model.n_heads=1"],
    "naive": ["model.attention_impl=naive", "model.layer_impl=naive"],
}


def config_of(*changes: str) -> ModelConfig:
    return resolve_config(TREE, "debug", ["model.vocab_size=256", "model.context_length=24", *changes]).model


def random_model(config: ModelConfig) -> LanguageModel:
    """A model with weights large enough that its logits are far apart."""
    request = build_model(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in request.named_parameters():
            weight.normal_(1.0 if "norm" in name and name.endswith("scale") else 0.0, 0.3, generator=draw)
    return request


def continue_prompts(model: LanguageModel, prompts: list[str], config: GenerateConfig, **settings: Any) -> list[list[int]]:
    """The new tokens of each prompt, by the engine alone."""
    sequences = [TokenSequence(BYTES.encode(prompt), config) for prompt in prompts]
    for _ in generate_tokens(model, sequences, CPU, **settings):
        pass
    return [sequence.tokens for sequence in sequences]


def assert_same_tokens(tokens: list[int], expected: list[int], model: LanguageModel, prompt: list[int]) -> None:
    """The same tokens, unless rounding chose between two whose logits are within 1e-4; such a case is skipped."""
    if tokens == expected:
        return
    at = next(n for n, (a, b) in enumerate(itertools.zip_longest(tokens, expected)) if a != b)
    window = torch.tensor([[*prompt, *expected[:at]][-model.context_length :]])
    best = model.next_token_logits(window)[0].topk(2).values
    gap = float(best[0] - best[1])
    assert gap < 1e-4, f"token {at} differs, and the two best logits are {gap:.2g} apart: {tokens[at]}, not {expected[at]}"
    pytest.skip(f"token {at} is not determined: the two best logits are {gap:.2g} apart")


# ── the filters ──


@pytest.fixture(scope="module")
def theirs() -> Any:
    return pytest.importorskip("transformers")


def random_logits(seed: int, n: int = 257) -> torch.Tensor:
    return 3 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("ours", "name", "value"),
    [
        *((keep_top_k, "TopKLogitsWarper", k) for k in (1, 7, 256, 257, 1000)),
        *((keep_top_p, "TopPLogitsWarper", p) for p in (0.01, 0.5, 0.9, 0.999)),
        *((keep_min_p, "MinPLogitsWarper", p) for p in (0.001, 0.1, 0.5, 1.0)),
    ],
)
def test_a_filter_keeps_what_transformers_keeps(theirs: Any, ours: Any, name: str, value: float, seed: int) -> None:
    logits = random_logits(seed)
    expected = getattr(theirs, name)(value)(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0]
    assert torch.equal(ours(logits, value), expected)


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_the_penalty_is_that_of_transformers(theirs: Any, penalty: float) -> None:
    logits, seen = random_logits(1), [3, 250, 3, 17]
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), logits[None].clone())[0]
    assert torch.equal(apply_repetition_penalty(logits, seen, penalty), expected)


@pytest.mark.parametrize("seed", range(20))
def test_the_filters_are_applied_in_the_order_of_transformers(theirs: Any, seed: int) -> None:
    """In another order, each of them would keep other tokens."""
    logits, seen = random_logits(seed), [1, 2, 3, 99]
    temperature, k, p, m, penalty = 0.7 + seed / 20, 40, 0.9, 0.02, 1.4
    processors = theirs.LogitsProcessorList(
        [
            theirs.RepetitionPenaltyLogitsProcessor(penalty),
            theirs.TemperatureLogitsWarper(temperature),
            theirs.TopKLogitsWarper(k),
            theirs.TopPLogitsWarper(p),
            theirs.MinPLogitsWarper(m),
        ]
    )
    expected = torch.softmax(processors(torch.tensor([seen]), logits[None].clone())[0], dim=-1)
    ours = keep_min_p(
        keep_top_p(keep_top_k(temperature_scaled(apply_repetition_penalty(logits, seen, penalty), temperature), k), p), m
    )
    torch.testing.assert_close(torch.softmax(ours, dim=-1).float(), expected)
    samples = {
        sample_token(
            logits,
            generator=torch.Generator().manual_seed(n),
            temperature=temperature,
            top_k=k,
            top_p=p,
            min_p=m,
            repetition_penalty=penalty,
            seen=seen,
        )
        for n in range(300)
    }
    assert samples <= set(expected.nonzero().flatten().tolist())


def test_transformers_itself_builds_its_filters_in_that_order(theirs: Any) -> None:
    config = theirs.GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16, n_positions=8)
    model = theirs.GPT2LMHeadModel(config)
    generation = theirs.GenerationConfig(
        do_sample=True, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, repetition_penalty=1.2, max_length=8
    )
    processors = model._get_logits_processor(generation, input_ids_seq_length=1, encoder_input_ids=torch.zeros(1, 1))
    assert [type(processor).__name__ for processor in processors] == [
        "RepetitionPenaltyLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
    ]


def test_a_temperature_of_0_is_greedy_after_the_penalty() -> None:
    logits, draw = torch.tensor([3.0, 2.9, -1.0]), torch.Generator()
    assert sample_token(logits, generator=draw, temperature=0) == 0
    assert sample_token(logits, generator=draw, temperature=0, repetition_penalty=1.5, seen=[0]) == 1


# ── the cache, the kernel, the batch ──


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("with_kernel", [True, False], ids=["kernel", "torch"])
@pytest.mark.parametrize("length", [1, 23, 24, 60])
def test_the_cache_gives_the_tokens_of_the_naive_loop(
    design: str, with_kernel: bool, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 tokens after prompts of several lengths, in a context of 24: shorter than it, reaching its end, and longer."""
    model = random_model(config_of(*DESIGNS[design]))
    prompt = "to be, or not to be, that is the question: whether 'tis nobler"[:length]
    expected = list(generate_naive(model, BYTES.encode(prompt), GREEDY, CPU))
    assert len(set(expected)) > 2, "a text that repeats a token tests little"
    if not with_kernel:
        monkeypatch.setattr("lib.generate.quantize.why_no_kernel", lambda: "switched off by this test")
    (tokens,) = continue_prompts(InferenceModel(model), [prompt], GREEDY)
    assert_same_tokens(tokens, expected, model, BYTES.encode(prompt))


@pytest.mark.parametrize("design", [name for name in DESIGNS if name not in ("bigram", "single_head")])
def test_a_step_of_the_kernel_has_the_logits_of_a_full_forward_pass(design: str) -> None:
    model = random_model(config_of(*DESIGNS[design]))
    inference = InferenceModel(model)
    ids = torch.randint(256, (1, 24), generator=torch.Generator().manual_seed(2))
    cache = inference.cache(24)
    assert cache is not None
    with torch.inference_mode():
        inference.next_token_logits(ids[:, :3], [cache])
        for n in range(3, 24):
            logits = inference.next_token_logits(ids[:, n : n + 1], [cache])
            torch.testing.assert_close(logits, model.next_token_logits(ids[:, : n + 1]), atol=2e-4, rtol=1e-5)


def test_the_kernel_compiles() -> None:
    """Otherwise the tests above compare PyTorch with itself."""
    assert load_kernel() is not None


@pytest.mark.parametrize("config", [GREEDY, WARM, replace(WARM, top_k=5, top_p=0.9, repetition_penalty=1.2)])
@pytest.mark.parametrize("design", ["gpt2", "grouped, normed", "bigram"])
@pytest.mark.parametrize("format", ["float32", "int8", "int4"])
def test_a_text_does_not_depend_on_its_batch(config: GenerateConfig, design: str, format: str) -> None:
    model = InferenceModel(random_model(config_of(*DESIGNS[design])), format)
    prompts = ["a", "to be, or not to be, that is the question", "whether", "z", "to be"]
    alone = [continue_prompts(model, [prompt], config)[0] for prompt in prompts]
    for batch_size in (1, 2, 3, 8):
        assert continue_prompts(model, prompts, config, batch_size=batch_size) == alone
    assert continue_prompts(model, prompts[::-1], config, batch_size=4) == alone[::-1]


@pytest.mark.parametrize("format", WEIGHT_FORMATS)
def test_a_row_of_the_kernel_does_not_depend_on_the_other_rows(format: str) -> None:
    linear = Linear(70, 131)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        linear.weight.normal_(generator=draw)
        assert linear.bias is not None
        linear.bias.normal_(generator=draw)
    product = QuantizedLinear(linear, format, load_kernel())
    x = torch.randn(11, 70, generator=draw)
    whole = product(x)
    for rows in (slice(0, 1), slice(3, 6), slice(2, 10)):
        assert torch.equal(product(x[rows]), whole[rows])
    by_torch = QuantizedLinear(linear, format, None)
    torch.testing.assert_close(whole, by_torch(x), atol=2e-3 if format in ("int8", "int4") else 1e-4, rtol=1e-4)


@pytest.mark.parametrize("format", ["int8", "int4"])
@pytest.mark.parametrize("width", [2048, 8192, 20000])
def test_integer_sums_do_not_overflow_32_bits(width: int, format: str) -> None:
    """All weights and inputs have the largest value, with the same sign."""
    linear = Linear(width, 7, bias=False)
    torch.nn.init.constant_(linear.weight, 2.0)
    product = QuantizedLinear(linear, format, load_kernel())
    torch.testing.assert_close(product(torch.full((1, width), 3.0)), torch.full((1, 7), 6.0 * width), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("format", "tolerance"), [("bfloat16", 0.02), ("int8", 0.04), ("int4", 0.4)])
def test_smaller_weight_formats_give_similar_logits(format: str, tolerance: float) -> None:
    model = random_model(config_of())
    inference = InferenceModel(model, format)
    ids = torch.randint(256, (4, 24), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        logits = model(ids)
        assert 0 < (inference(ids) - logits).norm() / logits.norm() < tolerance
        losses = [network.loss(ids[:, :-1], ids[:, 1:]).item() for network in (inference, model)]
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)


def test_a_naive_model_stays_naive() -> None:
    inference = InferenceModel(random_model(config_of(*DESIGNS["naive"])))
    assert not any(isinstance(module, QuantizedLinear) for module in inference.modules())
    assert "naive" in str(inference.no_kernel)


@pytest.mark.parametrize("format", WEIGHT_FORMATS)
def test_an_inference_model_does_not_change_the_trained_one(format: str) -> None:
    model = random_model(config_of()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    attributes = [set(vars(module)) for module in model.modules()]
    continue_prompts(InferenceModel(model, format), ["to be"], GREEDY)
    assert model.training
    assert [type(module) for module in model.modules()] == modules
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model.loss(torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long)).backward()


def test_the_numbers_of_the_formats_are_those_of_the_kernel() -> None:
    header = (Path(kernel.__file__).parent / "matrix.h").read_text(encoding="utf-8")
    for format, number in KERNEL_FORMATS.items():
        assert re.search(rf"\b{format.upper()} = {number}\b", header)


def test_ids_outside_the_vocabulary_are_named_everywhere() -> None:
    for model in (random_model(config_of()), InferenceModel(random_model(config_of()))):
        for ids in ([7, 256], [-1]):
            with pytest.raises(
                MakegptError, match=f"the id {ids[-1]} is not in the model's vocabulary of 256 tokens, 0 to 255"
            ):
                list(generate_tokens(model, [TokenSequence(ids, GREEDY)], CPU))
            cache = model.cache(8)
            assert cache is not None
            with pytest.raises(MakegptError, match=f"the id {ids[-1]} is not"):
                model.next_token_logits(torch.tensor([ids]), [cache])
            with pytest.raises(MakegptError, match=f"the id {ids[-1]} is not"):
                model.loss(torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.long))
    with pytest.raises(MakegptError, match="at least one token"):
        TokenSequence([], GREEDY)


def test_the_engine_yields_each_token_with_its_logits_and_can_be_stopped() -> None:
    sequence = TokenSequence([1, 2, 3], GREEDY)
    for n, (same, id, logits) in enumerate(generate_tokens(random_model(config_of()), [sequence], CPU), 1):
        assert same is sequence
        assert sequence.tokens[-1] == id == int(logits.argmax())
        if n == 5:
            sequence.finish_reason = "enough"
    assert len(sequence.tokens) == 5


def test_more_tokens_than_the_context_are_refused_with_a_cache() -> None:
    model = random_model(config_of())
    cache = model.cache(24)
    assert cache is not None
    with torch.inference_mode():
        model.next_token_logits(torch.zeros(1, 24, dtype=torch.long), [cache])
        with pytest.raises(MakegptError, match="25 tokens are more than the model's context of 24"):
            model.next_token_logits(torch.zeros(1, 1, dtype=torch.long), [cache])


# ── samples, stops, pieces ──


def test_samples_have_consecutive_seeds_and_the_first_is_that_of_a_single_sample() -> None:
    model = random_model(config_of())
    texts = list(make_requests(BYTES, [encode_prompt(BYTES, "to be")], WARM, 3))
    complete(model, texts, CPU)
    assert [text.config.seed for text in texts] == [1, 2, 3]
    assert len({tuple(text.tokens) for text in texts}) == 3
    assert [text.tokens for text in texts] == [
        list(generate_naive(model, BYTES.encode("to be"), replace(WARM, seed=seed), CPU)) for seed in (1, 2, 3)
    ]


class Scripted(LanguageModel):
    """A model that predicts `ids`, whatever its input."""

    def __init__(self, ids: list[int], vocab_size: int) -> None:
        super().__init__(replace(config_of(), vocab_size=vocab_size))
        self.script = iter(ids)

    def next_token_logits(self, ids: torch.Tensor, caches: Any = ()) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(self.script)]), self.vocab_size).float()


def request_and_pieces(tokenizer: Tokenizer, ids: list[int], **settings: Any) -> tuple[Request, list[str]]:
    request = Request(
        tokenizer, encode_prompt(tokenizer, settings.pop("prompt", "x")), replace(GREEDY, max_new_tokens=len(ids)), **settings
    )
    return request, [piece for _, piece in stream_text(Scripted(ids, tokenizer.vocab_size), [request], CPU)]


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["stop"], "one, "),
        (["stop", ", s"], "one"),
        (["zz"], "one, stop, two st"),
        (["st!", "sto"], "one, "),
        (["two st"], "one, stop, "),
        (["o"], ""),
    ],
)
def test_a_text_ends_before_its_stop(stop: list[str], text: str) -> None:
    request, pieces = request_and_pieces(BYTES, BYTES.encode("one, stop, two st"), stop=stop)
    assert "".join(pieces) == request.text == text
    assert request.finish_reason == ("length" if "zz" in stop else "stop")


def test_no_part_of_a_stop_text_is_streamed() -> None:
    request, pieces = request_and_pieces(BYTES, BYTES.encode("a--b---c"), stop=["---"])
    assert request.text == "a--b"
    assert not any("".join(pieces[:n]).endswith("-") and not "a--b".startswith("".join(pieces[:n])) for n in range(len(pieces)))
    assert request.tokens == BYTES.encode("a--b---"), "the tokens are all cached"


def test_pieces_have_whole_characters() -> None:
    text = "naïve — 😀 日本"
    _, pieces = request_and_pieces(BYTES, BYTES.encode(text))
    assert "".join(pieces) == text
    assert all("�" not in piece for piece in pieces)
    assert pieces[BYTES.encode(text).index("😀".encode()[0]) :][:4] == ["", "", "", "😀"]
    broken, _ = request_and_pieces(BYTES, BYTES.encode("é")[:1])
    assert broken.text == "�"


def test_the_end_of_text_token_ends_a_text() -> None:
    words = make_tokenizer("word", [["a b c"]], Path())
    assert words.endoftext is not None
    request, pieces = request_and_pieces(words, [0, 1, words.endoftext, 1], prompt="c")
    assert request.finish_reason == "end_of_text"
    assert request.tokens == [0, 1]
    assert "".join(pieces) == request.text == " a b"


def test_a_stop_text_of_any_length_costs_as_much_as_what_is_held_back() -> None:
    decoder = StreamDecoder(make_tokenizer("bytes", [], Path()), None, ["a" * 4_000_000, "ab" * 1_000_000])
    assert [decoder.decode(id) for id in b"xababc"] == ["x", "", "", "", "", "ababc"]
    assert (decoder.decode(ord("a")), decoder.flush(), decoder.stopped) == ("", "a", False)


def test_words_stream_with_their_spaces() -> None:
    words = make_tokenizer("word", [["To be, or not: be!"]], Path())
    request, pieces = request_and_pieces(words, words.encode("be, or not!"), prompt="To")
    assert pieces == [" be", ",", " or", " not", "!"]
    assert "".join(pieces) == request.text
    first = StreamDecoder(words, None)
    assert [first.decode(id) for id in words.encode("not be")] == ["not", " be"]


def test_texts_are_yielded_in_the_order_of_the_requests() -> None:
    model = random_model(config_of())
    texts = [
        Request(BYTES, encode_prompt(BYTES, prompt), replace(WARM, max_new_tokens=n))
        for prompt, n in (("a", 9), ("b", 2), ("c", 5), ("d", 1))
    ]
    pieces = [
        (text, piece, text.finish_reason) for text, piece in in_request_order(stream_text(model, texts, CPU, batch_size=2))
    ]
    by_text = {text: list(group) for text, group in itertools.groupby(pieces, key=lambda piece: piece[0])}
    assert list(by_text) == texts
    assert [len(group) for group in by_text.values()] == [9, 1, 1, 1]  # the others end while the first is written
    for text, group in by_text.items():
        assert "".join(piece for _, piece, _ in group) == text.text
        assert [reason for _, _, reason in group if reason] == ["length"]  # so its end is written once


# ── the command ──


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_text_that_ends_before_the_one_above_it_is_written_once(small: Path, stage: Stage) -> None:
    words = ["--max-new-tokens", 9, "--stop", "e", "--num-samples", 6, "--temperature", 1.5]
    rows = lines(stage("generate", small / "run", "To be", "--json", *words).stdout)
    assert len({len(row["tokens"]) for row in rows}) > 2
    assert [row["seed"] for row in rows] == [1, 2, 3, 4, 5, 6]
    text = stage("generate", small / "run", "To be", *words).stdout
    assert text == "".join(row["text"] + "\n---\n" for row in rows)


def test_prompts_and_outputs_are_json_lines(small: Path, stage: Stage, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "To be", "id": 7, "seed": "theirs"}\n\n"or not é"\n{"prompt": ""}\n', encoding="utf-8")
    words = ["--json", "--max-new-tokens", 6, "--seed", 4]
    rows = lines(stage("generate", small / "run", "--prompts", prompts, *words, "--num-samples", 2).stdout)
    assert [row["prompt"] for row in rows] == ["To be"] * 2 + ["or not é"] * 2 + [""] * 2
    assert [row["seed"] for row in rows] == [4, 5] * 3
    assert [row.get("id") for row in rows] == [7, 7, None, None, None, None]
    assert {row["finish_reason"] for row in rows} == {"length"}
    piped = stage("generate", small / "run", "--prompts", "-", *words, "--batch-size", 1, input=prompts.read_text("utf-8"))
    assert lines(piped.stdout) == rows[::2]
    (single,) = lines(stage("generate", small / "run", "or not é", *words).stdout)
    assert single == rows[2]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"prompt": "a"}\n{"prompt": \n', "line 2"),
        (b'{"prompt": "a"}\n\n[1, 2]\n', "line 3: the prompt is missing"),
        (b'{"prompt": 7}\n', "line 1: the prompt is not a string"),
        (b'"a"\n"\xff"\n', "line 2"),
        (b'{"prompt": "a", "x": NaN}\n', "line 1: NaN is not JSON"),
        (b'{"prompt": "a", "x": "\\ud800"}\n', "line 1: "),
        (b'{"prompt": "a", "x": ' + b"[" * 100_000, "line 1: "),
    ],
)
def test_an_invalid_prompt_line_is_named(small: Path, here: Here, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "prompts.jsonl").write_bytes(content)
    done = here("generate", small / "run", "--prompts", tmp_path / "prompts.jsonl", "--json", code=1)
    assert complaint in done.err
    assert not done.out


def test_explain_reports_each_token(small: Path, here: Here) -> None:
    words = [small / "run", "To be", "--max-new-tokens", 5, "--temperature", 0, "--explain"]
    (row,) = lines(here("generate", *words, "--json").out)
    assert [token["id"] for token in row["explained"]] == row["tokens"]
    for token, logprob in zip(row["explained"], row["logprobs"], strict=True):
        assert token["rank"] == 1, "greedy takes the most likely"
        assert token["alternatives"][0]["id"] == token["id"]
        assert token["logprob"] == pytest.approx(logprob, abs=1e-4)
        probabilities = [other["probability"] for other in token["alternatives"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) <= 1.0001
    table = here("generate", *words).out.splitlines()
    assert len(table) >= 1 + 5 + 1
    assert table[0].startswith("token")
    assert "\x1b" not in "".join(table)


def test_a_prompt_beyond_the_context_is_cropped_with_a_notice_or_refused(small: Path, here: Here) -> None:
    long = "x" * 40
    done = here("generate", small / "run", long, "--max-new-tokens", 3)
    assert "40 tokens; the model sees the last 32" in done.err
    assert here("generate", small / "run", long, "--max-new-tokens", 3, "--no-cache", "-q").out == done.out
    assert "shorten it" in here("generate", small / "run", long, "--strict", code=1).err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--top-p 0", "greater than 0 and at most 1"),
        ("--top-p 1.5", "greater than 0 and at most 1"),
        ("--top-k -1", "at least 1"),
        ("--min-p 2", "between 0 and 1"),
        ("--temperature -0.5", "between 0 and"),
        ("--repetition-penalty 0", "between 0.01 and 100"),
        ("--num-samples 0", "0 is not in the range"),
        ("--weights int3", "published or last, float32 or bfloat16 or int8 or int4"),
        ("--weights int8,bfloat16", "published or last,"),
        ("--interactive", "one of PROMPT"),
        ("--prompts x.jsonl", "one of PROMPT"),
    ],
)
def test_impossible_options_are_refused(small: Path, here: Here, words: str, complaint: str) -> None:
    assert complaint in here("generate", small / "run", "a", *words.split(), code=2).err


def test_weights_may_be_smaller_and_those_of_the_last_step(small: Path, here: Here) -> None:
    assert here("generate", small / "run", "a", "--weights", "last,bfloat16", "--max-new-tokens", 3).out
    whole = json.loads(here("evaluate", small / "run", *FEW).out)["loss"]
    assert 0 < abs(json.loads(here("evaluate", small / "run", "--weights", "int8", *FEW).out)["loss"] - whole) < 0.01


def test_an_interactive_session_answers_line_by_line(small: Path, stage: Stage) -> None:
    done = stage("generate", small / "run", "--interactive", "--max-new-tokens", 4, "--temperature", 0, input="To be\nor not\n")
    alone = [
        stage("generate", small / "run", line, "--max-new-tokens", 4, "--temperature", 0).stdout for line in ("To be", "or not")
    ]
    assert done.stdout == "".join(alone)


def test_the_token_scores_of_a_text_sum_to_its_loss(small: Path, stage: Stage, tmp_path: Path) -> None:
    text = "To be — or not to be?" * 3  # longer than the context of 32
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    whole = json.loads(stage("evaluate", small / "run", "--text", tmp_path / "text.txt").stdout)
    count = len(text.encode()) - 1
    assert (whole["tokens"], whole["bytes"]) == (count, count)
    assert {"uniform", "bigram", "5-gram", "gzip", "xz"} <= set(whole["baselines"]), "computed from the run's training text"
    scores = lines(stage("evaluate", small / "run", "-", "--per-token", input=text).stdout)
    assert [token["position"] for token in scores] == list(range(1, count + 1))
    assert bytes(token["id"] for token in scores) == text.encode()[1:]
    assert -sum(token["logprob"] for token in scores) / count == pytest.approx(whole["loss"], abs=1e-5)
    assert all((token["rank"] == 1) == (token["alternatives"][0]["id"] == token["id"]) for token in scores)


@pytest.mark.parametrize(("content", "complaint"), [(b"", "is empty"), (b"a", "1 tokens"), (b"a\xff", "byte 1 (0xff)")])
def test_a_text_too_short_or_broken_is_refused(small: Path, here: Here, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    assert complaint in here("evaluate", small / "run", "--text", tmp_path / "text.txt", code=1).err


def test_without_a_compiler_pytorch_computes_everything(small: Path, stage: Stage) -> None:
    words = ["generate", small / "run", "To be", "--max-new-tokens", 20, "--temperature", 0]
    no_compiler = {"PATH": "/nonexistent", "CXX": "/nonexistent/c++", "XDG_CACHE_HOME": "/proc/nothing"}
    alone = stage(*words, env=os.environ | no_compiler).stdout
    assert alone == stage(*words).stdout
    assert stage(*words, "--weights", "int8", env=os.environ | no_compiler).stdout


def test_a_damaged_cached_kernel_is_recompiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_kernel() is not None
    (whole,) = kernel._cache_folder().glob(f"kernel-{kernel._key()}-*.so")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel._load_cached() is None, "the cache is empty"
    cached = kernel._cache_folder() / whole.name
    cached.parent.mkdir()
    for damaged in (b"", whole.read_bytes()[:20_000], whole.read_bytes()[:-1] + b"x"):
        cached.write_bytes(damaged)
        assert kernel._load_cached() is None, "loading a part of a library would crash the process"
    kernel._compile()
    assert kernel._load_cached() is not None
    assert cached.read_bytes() == whole.read_bytes()


def test_a_step_beyond_the_capacity_of_a_cache_is_refused() -> None:
    model = InferenceModel(random_model(config_of()))
    cache = model.cache(2)
    assert cache is not None
    token = torch.tensor([[1]])
    with torch.inference_mode():
        model.next_token_logits(token, [cache])
        model.next_token_logits(token, [cache])
        with pytest.raises(MakegptError, match="3 tokens do not fit into a KV cache of 2"):
            model.next_token_logits(token, [cache])


@pytest.mark.parametrize("format", WEIGHT_FORMATS)
@pytest.mark.parametrize(
    "name", ["out_head.weight", "blocks.0.attention.W_qkv.weight", "blocks.1.feed_forward.contract.weight"]
)
def test_weights_that_are_not_finite_are_detected(format: str, name: str) -> None:
    model = random_model(config_of())
    with torch.no_grad():
        model.get_parameter(name)[3, 1] = torch.inf
    for config in (GREEDY, WARM):
        with pytest.raises(MakegptError, match="not finite"):
            continue_prompts(InferenceModel(model, format), ["to be"], config)


def test_long_texts_are_computed_by_pytorch_with_the_same_logits() -> None:
    model = random_model(config_of("model.context_length=200"))
    ids = torch.randint(256, (1, 150), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(
            InferenceModel(model).next_token_logits(ids), model.next_token_logits(ids), atol=1e-4, rtol=1e-5
        )
