"""The text of the page, its tokens and its earlier states, in Node.js."""

from pathlib import Path

from tests.page.node import needs_node, run_in_node

#: A draft of the text "abc", analyzed, and tokens by their letters.
DRAFT = """
const token = (letter, surprisal = null) => {
  const code = letter.charCodeAt(0);
  return { id: code, text: letter, bytes: [code], surprisal };
};
const draft = new draft_module.Draft();
draft.type("abc");
draft.analyzed({ tokens: [..."abc"].map((letter, at) => token(letter, at || null)), next: {} });
const letters = () => draft.ids && String.fromCharCode(...draft.ids);
"""


@needs_node
def test_undo_gives_each_earlier_text_with_its_tokens(tmp_path: Path) -> None:
    code = """
    draft.remember(); draft.beginWriting(); draft.write(token("d")); draft.write(token("e"));
    draft.choose(4, token("x"));
    const texts = [[draft.text, letters(), draft.begins]];
    while (draft.canUndo) { draft.undo(); texts.push([draft.text, letters(), draft.begins]); }
    return texts;
    """
    texts = run_in_node(DRAFT + code, tmp_path, "draft")
    assert texts == [["abcdx", "abcdx", 3], ["abcde", "abcde", 3], ["abc", "abc", None]]


@needs_node
def test_another_model_gets_the_text_and_not_the_tokens_of_the_first(tmp_path: Path) -> None:
    code = """
    draft.remember(); draft.beginWriting(); draft.write(token("d"));
    draft.forgetTokens();
    const prompts = [draft.prompt(10)];
    draft.undo();
    return [...prompts, draft.prompt(10), draft.analysis];
    """
    assert run_in_node(DRAFT + code, tmp_path, "draft") == ["abcd", "abc", None]


@needs_node
def test_each_change_is_another_version(tmp_path: Path) -> None:
    code = """
    const versions = [];
    const changes = [
        () => draft.type("x"),
        () => draft.undo(),
        () => draft.analyzed({ tokens: [token("a")] }),
        () => draft.write(token("d")),
        () => draft.choose(0, token("z")),
        () => draft.forgetTokens(),
    ];
    for (const change of changes) {
        const before = draft.version;
        change();
        versions.push(draft.version !== before);
    }
    return versions;
    """
    assert run_in_node(DRAFT + code, tmp_path, "draft") == [True, True, False, True, True, True]


@needs_node
def test_beyond_the_context_earlier_tokens_keep_their_scores(tmp_path: Path) -> None:
    code = """
    draft.remember(); draft.beginWriting(); draft.write(token("d", 7)); draft.write(token("e", 8));
    const prompt = draft.prompt(3);
    const last = [token("c"), { ...token("d", 1), entropy: 2 }, { ...token("e", 1), entropy: 3 }];
    draft.analyzed({ tokens: last, next: {}, memorized: [{ start: 0, stop: 2 }] });
    const { tokens, memorized, start } = draft.analysis;
    const scores = tokens.map(({ surprisal }) => surprisal);
    return { prompt, start, memorized, text: draft.text, scores, last: tokens.at(-1).entropy };
    """
    assert run_in_node(DRAFT + code, tmp_path, "draft") == {
        "prompt": [*b"cde"],
        "start": 2,
        "memorized": [{"start": 2, "stop": 4}],
        "text": "abcde",
        "scores": [None, 1, 2, 7, 8],
        "last": 3,
    }


@needs_node
def test_two_models_are_compared_where_both_score(tmp_path: Path) -> None:
    code = """
    const nats = (bits) => (bits === null ? null : bits * Math.LN2);
    const words = (...pairs) => pairs.map(([length, bits]) => ({ bytes: Array(length).fill(65), surprisal: nats(bits) }));
    const a = words([1, null], [1, 5], [1, 2], [2, 4], [1, 1]);
    const b = words([2, null], [1, 3], [1, 1], [1, 1], [1, 2]);
    return [b, a, []].map((other) => surprisal_module.compareSurprisal(a, other));
    """
    # from byte 2 on, in pieces of 1, 2 and 1 bytes: 1, -2 and 1 bits more
    compared, same, none = run_in_node(code, tmp_path, "surprisal")
    assert abs(compared["difference"]) < 1e-12
    assert abs(compared["error"] - (3 * 3) ** 0.5 / 4) < 1e-12
    assert same == {"difference": 0, "error": 0}
    assert none is None
