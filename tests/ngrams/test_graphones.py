"""Words and pronunciations cut into graphones, their counts, and the search for the most probable pronunciation."""

import math
from itertools import pairwise, product

import numpy as np
import pytest

from lib.data.shards import InMemoryTokens
from lib.errors import MakegptError
from lib.ngrams.alignment import LONGEST, Alignment, Graphone, Pair, cuts, naive_expected_counts
from lib.ngrams.graphones import GraphoneModel, Histories
from lib.ngrams.kneser_ney import KneserNey

#: Letters from 1, phonemes from 11: 3 is silent after 1, 5 stands for two phonemes, 2 and 4 together for one.
RULES = {(1, 3): [11], (1,): [11], (2,): [12], (4,): [14], (2, 4): [13], (5,): [15, 16]}


def spelled(parts: list[tuple[int, ...]]) -> Pair:
    return Pair([id for part in parts for id in part], [id for part in parts for id in RULES[part]])


#: Words of up to four parts. 2 and 4 are never next to each other but as one part.
WORDS = [
    spelled(list(parts))
    for length in (1, 2, 3, 4)
    for parts in product(RULES, repeat=length)
    if not any(pair == ((2,), (4,)) for pair in pairwise(parts))
]


def test_the_cuts_of_a_pair_are_all_ways_to_pair_its_parts() -> None:
    assert list(cuts(Pair([1], [11, 12]))) == [[Graphone((1,), (11, 12))]]
    assert list(cuts(Pair([1], [11, 12, 13]))) == []
    assert len(list(cuts(Pair([1, 2], [11])))) == 3  # the phoneme is of the first letter, of the second, or of both


def test_expected_counts_are_those_of_all_cuts() -> None:
    alignment = Alignment(WORDS[:60], rounds=2)
    lattices, _ = alignment._lattices(WORDS[:60])
    counts = np.zeros(len(alignment.graphones))
    for lattice in lattices:
        lattice.add_expected_counts(alignment.probabilities, counts)
    probabilities = dict(zip(alignment.graphones, alignment.probabilities, strict=True))
    naive: dict[Graphone, float] = {}
    for pair in WORDS[:60]:
        for graphone, count in naive_expected_counts(pair, probabilities).items():
            naive[graphone] = naive.get(graphone, 0.0) + count
    assert dict(zip(alignment.graphones, counts, strict=True)) == pytest.approx(
        {g: naive.get(g, 0.0) for g in alignment.graphones}
    )


def test_the_best_cut_is_the_most_probable_of_all() -> None:
    alignment = Alignment(WORDS[:60], rounds=3)
    probabilities = dict(zip(alignment.graphones, alignment.probabilities, strict=True))
    for pair, sequence in zip(WORDS, alignment.sequences, strict=False):
        best = [alignment.graphones[number] for number in sequence]
        assert [id for graphone in best for id in graphone.letters] == list(pair.source)
        assert [id for graphone in best for id in graphone.phonemes] == list(pair.target)
        weights = [math.prod(probabilities[graphone] for graphone in cut) for cut in cuts(pair)]
        assert math.prod(probabilities[graphone] for graphone in best) == pytest.approx(max(weights))


def test_pairs_without_a_cut_and_long_ones_are_left_out() -> None:
    long = Pair([1] * (LONGEST + 1), [11] * (LONGEST + 1))
    alignment = Alignment([Pair([1], [11, 11, 11]), Pair([2], [12]), long])
    assert [alignment.graphones[number] for (number,) in alignment.sequences] == [Graphone((2,), (12,))]
    with pytest.raises(MakegptError, match="ids below 55,000"):
        Alignment([Pair([60_000], [1])])


def test_histories_have_the_probabilities_of_kneser_ney() -> None:
    order = 4
    texts = [[1, 2, 3], [1, 2], [2, 3, 1, 2, 3], [3]]
    histories = Histories(texts, 4, order)
    for text in ([1, 2, 3], [3, 3, 1], [2]):
        ids = np.array([*[0] * (order - 1), *text, 0])
        expected = [
            loss
            for block in KneserNey(histories._ngrams).nats(InMemoryTokens(ids), order - 1, len(ids))
            for loss in block["4-gram"]
        ]
        state, losses = histories.start[None], []
        for id in [*text, 0]:
            p, state = histories.follow(state, np.array([id]))
            losses.append(-math.log(p[0]))
        assert losses == pytest.approx(expected, rel=1e-5)


def test_the_probabilities_after_a_history_sum_to_1_and_texts_do_not_see_each_other() -> None:
    histories = Histories([[1, 2, 3], [1, 2], [3]], 4, 3)
    state = histories.start[None]
    for id in (1, 2):
        p, _ = histories.follow(np.repeat(state, 4, axis=0), np.arange(4))
        assert p.sum() == pytest.approx(1)
        state = histories.follow(state, np.array([id]))[1]
    swapped = Histories([[3], [1, 2], [1, 2, 3]], 4, 3)
    ids = np.arange(4)
    start = np.repeat(histories.start[None], 4, axis=0)
    assert histories.follow(start, ids)[0].tolist() == pytest.approx(swapped.follow(start, ids)[0].tolist())


def test_rules_are_learned_and_said_of_words_that_were_not_seen() -> None:
    held_out = WORDS[::7]
    model = GraphoneModel([word for word in WORDS if word not in held_out], order=3)
    assert model.predict([word.source for word in held_out]) == [word.target for word in held_out]


def test_the_search_finds_what_the_best_of_all_texts_says() -> None:
    training = WORDS[:200]
    model = GraphoneModel(training, order=3, beam=1000)
    narrow = GraphoneModel(training, order=3, beam=3)
    sources = [word.source for word in WORDS[200:400:10]]
    assert model.predict(sources) == narrow.predict(sources)
    for source, target in zip(sources, model.predict(sources), strict=True):
        texts = [(_score(model, text), text) for text in _texts(model, tuple(source))]
        _, best = max(texts)
        assert [id for graphone in best for id in model._phonemes[graphone]] == target


def _texts(model: GraphoneModel, letters: tuple[int, ...]) -> list[list[int]]:
    """All texts of graphones that spell `letters`."""
    if not letters:
        return [[]]
    starts = np.cumsum(model._sizes) - model._sizes
    texts = []
    for step in (1, 2):
        group = model._groups.get(letters[:step]) if step <= len(letters) else None
        if group is not None:
            graphones = model._graphones[starts[group] : starts[group] + model._sizes[group]].tolist()
            texts += [[graphone, *rest] for graphone in graphones for rest in _texts(model, letters[step:])]
    return texts


def _score(model: GraphoneModel, text: list[int]) -> float:
    state, score = model.histories.start[None], 0.0
    for graphone in [*text, 0]:
        p, state = model.histories.follow(state, np.array([graphone]))
        score += math.log(p[0])
    return score


def test_a_word_with_an_unknown_letter_has_no_pronunciation_and_others_are_as_before() -> None:
    model = GraphoneModel(WORDS, order=3)
    assert model.predict([[1, 99], [1, 2], [5]]) == [[], [11, 12], [15, 16]]


def test_without_a_pair_that_can_be_cut_nothing_is_predicted() -> None:
    model = GraphoneModel([Pair([1], [11, 12, 13, 14])])
    assert model.predict([[1], [2, 1]]) == [[], []]
