"""Exercises: the file with holes, our own functions as right answers, and wrong answers that are told what is wrong."""

import json
from pathlib import Path

import pytest
import torch

from lib.book import find_page, source_lines
from lib.errors import MakegptError, UsageError
from lib.exercises.answers import check_answers, read_answers
from lib.exercises.catalog import EXERCISES, find_exercise
from lib.exercises.compare import first_mismatch
from lib.exercises.exercise import practice_file
from lib.exercises.process import grade
from lib.exercises.solutions import gradient_step, multi_head_attention
from lib.model.attention import build_attention
from tests.conftest import Stage
from tests.model.test_formulas import config_of

NAMES = list(EXERCISES)


@pytest.mark.parametrize("name", NAMES)
def test_our_functions_are_right_answers(name: str) -> None:
    exercise = EXERCISES[name]
    assert [result for result in check_answers(exercise, exercise.solutions) if result.problem] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_holes_has_every_function_and_no_body(name: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.py"
    path.write_text(practice_file(name, EXERCISES[name]))
    answers = read_answers(path)
    results = check_answers(EXERCISES[name], answers)
    assert {result.problem for result in results} == {
        f"{check.function} is not written yet" for check in EXERCISES[name].checks
    }
    for source in EXERCISES[name].sources:
        last = source_lines(source).splitlines()[-1].strip()
        assert last not in path.read_text()
    assert all({check.function for check in exercise.checks} == set(exercise.solutions) for exercise in EXERCISES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_our_bodies_is_right(name: str, tmp_path: Path) -> None:
    """What a reader types has nothing but the imports of the file."""
    text = practice_file(name, EXERCISES[name])
    for source in EXERCISES[name].sources:
        lines = source_lines(source)
        start = text.index(lines.splitlines()[0])
        end = text.index("raise NotImplementedError", start) + len("raise NotImplementedError\n")
        text = text[:start] + lines + text[end:]
    path = tmp_path / "answers.py"
    path.write_text(text)
    assert [result.problem for result in check_answers(EXERCISES[name], read_answers(path)) if result.problem] == []


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_names_its_page(name: str) -> None:
    assert find_page(EXERCISES[name].page)


def wrong(name: str, code: str, tmp_path: Path) -> dict[str, str | None]:
    path = tmp_path / "answers.py"
    path.write_text("import torch\n" + code)
    return {result.about: result.problem for result in check_answers(EXERCISES[name], read_answers(path))}


def test_the_first_wrong_number_is_named(tmp_path: Path) -> None:
    problems = wrong("softmax", "def softmax(s):\n    return s / s.sum(-1, keepdim=True)\n", tmp_path)
    assert problems["two equal scores"] is None
    assert problems["rows of a matrix"] is not None
    assert problems["rows of a matrix"].startswith("[0, 0] is ")
    assert problems["attention without weights"] == "the function simplified_attention is missing"


def test_an_overflow_is_found(tmp_path: Path) -> None:
    code = "def softmax(s):\n    return s.exp() / s.exp().sum(-1, keepdim=True)\n"
    assert wrong("softmax", code, tmp_path)["large scores do not overflow"] == "[0] is nan, not 0.731059"


def test_a_look_into_the_future_is_found(tmp_path: Path) -> None:
    code = "def attention_weights(q, k, mask):\n    return torch.softmax(q @ k.mT / 3 ** 0.5, -1)\n"
    problem = wrong("causal_attention", code, tmp_path)["no weight on the future"]
    assert problem is not None
    assert problem.startswith("a position attends to a later one with weight 0.")


def test_heads_that_are_not_divided_are_found(tmp_path: Path) -> None:
    source = source_lines("lib/exercises/solutions.py:multi_head_attention").replace(": Tensor", "").replace(" -> Tensor", "")
    forgotten = source.replace(" * (C // n_heads) ** -0.5", " * C ** -0.5")
    assert forgotten != source
    problems = wrong("attention", forgotten, tmp_path)
    assert problems["one head"] is None
    assert problems["two heads"] is not None
    assert problems["no look into the future"] is None


def test_errors_of_an_answer_are_one_line(tmp_path: Path) -> None:
    assert wrong("softmax", "def softmax(s):\n    return s + unknown\n", tmp_path)["two equal scores"] == (
        "softmax fails: NameError: name 'unknown' is not defined"
    )
    path = tmp_path / "answers.py"
    path.write_text("def softmax(:\n")
    with pytest.raises(MakegptError, match=r"answers.py does not run: SyntaxError"):
        read_answers(path)
    with pytest.raises(MakegptError, match="cannot be read"):
        read_answers(tmp_path / "none.py")


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise GeneratorExit"])
def test_a_file_that_ends_the_program_is_wrong(tmp_path: Path, code: str) -> None:
    path = tmp_path / "answers.py"
    path.write_text(code)
    with pytest.raises(MakegptError, match=r"answers.py does not run: (SystemExit|GeneratorExit)"):
        read_answers(path)
    problems = wrong("softmax", f"def softmax(s):\n    {code}\n", tmp_path)
    assert (problems["two equal scores"] or "").startswith("softmax fails: ")


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        (None, "the result is None, not a tensor of shape (2,)"),
        ([1.0, 2.0], "the result is a list, not a tensor of shape (2,)"),
        (torch.ones(3), "the shape is (3,), not (2,)"),
        (torch.tensor([1.0, 3.0]), "[1] is 3, not 2"),
        (torch.tensor([1.0, 2.00001]), None),
    ],
)
def test_a_difference_in_words(actual: object, problem: str | None) -> None:
    assert first_mismatch(actual, torch.tensor([1.0, 2.0])) == problem


def test_an_unknown_exercise_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'softmax'"):
        find_exercise("softmaks")


def test_attention_of_the_exercise_is_that_of_the_model() -> None:
    attention = build_attention(config_of("decoder", emb_dim=12, n_heads=3, context_length=6)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in attention.parameters():
            weight.normal_(0, 0.3, generator=generator)
        attention.get_parameter("out_proj.bias").zero_()
        x = torch.randn(2, 6, 12, generator=generator)
        ours = multi_head_attention(x, attention.get_parameter("W_qkv.weight"), attention.get_parameter("out_proj.weight"), 3)
        torch.testing.assert_close(ours, attention(x), rtol=1e-5, atol=1e-5)


def test_a_gradient_step_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(1)
    w, x, y = (torch.randn(*shape, generator=generator) for shape in ((3,), (5, 3), (5,)))
    w.requires_grad_()
    ((x @ w - y) ** 2).mean().backward()  # type: ignore[no-untyped-call]
    assert w.grad is not None
    torch.testing.assert_close(gradient_step(w.detach(), x, y, 0.1), (w - 0.1 * w.grad).detach())


def test_an_exercise_from_the_command_line(stage: Stage, tmp_path: Path) -> None:
    stage("practise", "softmax", cwd=tmp_path)
    path = tmp_path / "softmax.py"
    before = path.read_bytes()
    assert "exists already" in stage("practise", "softmax", cwd=tmp_path, code=2).stderr
    assert path.read_bytes() == before
    assert "0 of 5 right" in stage("check", "softmax", cwd=tmp_path, code=1).stdout
    path.write_text(
        "print('hello')\nimport torch\ndef softmax(s): return torch.softmax(s, -1)\n"
        "def simplified_attention(x): return softmax(x @ x.mT) @ x\n"
    )
    done = stage("check", "softmax", cwd=tmp_path)
    assert "5 of 5 right" in done.stdout
    assert "hello" in done.stderr
    graded = json.loads(stage("check", "softmax", "--json", cwd=tmp_path).stdout)
    assert graded["points"] == graded["max_points"] == len(graded["checks"]) == 5
    assert graded["checks"][0] == {"check": "two equal scores", "points": 1, "problem": None}


def test_the_list_of_exercises_has_the_parts_of_the_book(stage: Stage) -> None:
    lines = stage("practise").stdout.splitlines()
    parts = [line.removesuffix(":") for line in lines if not line.startswith(" ")]
    assert parts == list(dict.fromkeys(find_page(exercise.page).part for exercise in EXERCISES.values()))
    assert [line.split()[0] for line in lines if line.startswith(" ")] == NAMES


def test_a_folder_of_answers_is_graded_as_a_whole(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "activations.py").write_text(
        "import torch\ndef gelu(x): return torch.nn.functional.gelu(x, approximate='tanh')\ndef silu(x): return x\n"
    )
    graded = json.loads(stage("check", "--all", ".", "--json", cwd=tmp_path, code=1).stdout)
    assert [exercise["exercise"] for exercise in graded["exercises"]] == NAMES
    assert graded["points"] == 1
    assert graded["max_points"] == sum(exercise["max_points"] for exercise in graded["exercises"])
    assert "practise bigram" in graded["exercises"][NAMES.index("bigram")]["checks"][0]["problem"]
    assert "is not a folder" in stage("check", "--all", "nowhere", cwd=tmp_path, code=2).stderr
    assert "give an exercise" in stage("check", cwd=tmp_path, code=2).stderr


HALF = "import os, torch\ndef gelu(x):\n    return torch.nn.functional.gelu(x, approximate='tanh')\ndef silu(x):\n    {}\n"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("while True: pass", "takes longer than 1 s; is there an endless loop?"),
        ("os._exit(0)", "ended the process before this check"),
        ("return input()", "silu fails: EOFError"),
    ],
)
def test_an_answer_that_goes_astray_costs_its_own_check_alone(code: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.py"
    path.write_text(HALF.format(code))
    gelu, silu = grade("activations", path, seconds=1).results
    assert gelu.problem is None
    assert problem in (silu.problem or "")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("return x.numpy()", "the result is a numpy.ndarray, not a tensor of shape (5,)"),
        ("return x.to(torch.complex64)", "the result is a tensor of torch.complex64 on cpu, not of real numbers on the CPU"),
        ("return (x * x.sigmoid()).bfloat16()", "[0] is -0.142578, not -0.142278"),
        ("return x * x.sigmoid().double()", None),
        ("return [[]]", "the result is a list, not a tensor of shape (5,)"),
        ("return silu(x)", "silu fails: RecursionError: maximum recursion depth exceeded"),
        ("raise SystemExit", "silu fails: SystemExit"),
    ],
)
def test_a_result_of_another_kind_is_named(code: str, problem: str | None, tmp_path: Path) -> None:
    assert (wrong("activations", HALF.format(code), tmp_path)["SiLU"] or "").startswith(problem or "")
    assert (wrong("activations", HALF.format(code), tmp_path)["SiLU"] is None) == (problem is None)


def test_a_file_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "answers.py"
    path.write_text("while True: pass")
    graded = grade("activations", path, seconds=1)
    assert graded.points == 0
    assert all("takes longer than 1 s" in (result.problem or "") for result in graded.results)


def test_a_check_cannot_change_the_numbers_of_the_next(tmp_path: Path) -> None:
    code = "def layer_norm(x, scale, shift, eps):\n    x *= 0\n    return x\n"
    code += "def rms_norm(x, scale, eps): return scale * x * (x ** 2).mean(-1, True).add(eps).rsqrt()\n"
    assert wrong("norms", code, tmp_path)["the norm without a mean"] is None


@pytest.mark.parametrize(
    ("actual", "expected", "problem"),
    [
        ("abd", "abc", "character 3 is 'd', not 'c'"),
        ("ab", "abc", "character 3 is the end, not 'c'"),
        (b"ab", "ab", "the result is a bytes, not a str"),
        (["a", "c"], ["a", "b"], "item 2: character 1 is 'c', not 'b'"),
        (["a"], ["a", "b"], "the list has 1 items, not 2"),
        ((1, 2), range(1, 3), None),
        (torch.ones(2), [1, 1], "the result is a torch.Tensor, not a list"),
        ((1.0, 2.0), (1.0, 3.0), "result 2: the result is 2, not 3"),
    ],
)
def test_texts_and_lists_are_compared_item_by_item(actual: object, expected: object, problem: str | None) -> None:
    assert first_mismatch(actual, expected) == problem
