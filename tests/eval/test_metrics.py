import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.metrics import bootstrap_recalls, image_table, l2_normalise, percentile_interval, positive_ranks, recalls

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def naive_ranks(queries: Floats, gallery: Floats, pairs: Ints) -> Ints:
    """The definition, one query at a time: Python's stable sort, first positive's place."""
    found = []
    for query in range(len(queries)):
        scores = [float(np.dot(queries[query], item)) for item in gallery]
        order = sorted(range(len(gallery)), key=lambda item: scores[item], reverse=True)
        right = {int(item) for asked, item in pairs if asked == query}
        found.append(next((place for place, item in enumerate(order) if item in right), -1))
    return np.array(found)


def test_hand_written_matrix() -> None:
    # The gallery is the identity, so a query's scores are its own coordinates.
    gallery = np.eye(4, dtype=np.float32)
    queries = np.array(
        [[0.9, 0.1, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.0, 0.0, 0.5, 0.1]], dtype=np.float32
    )
    pairs = np.array([[0, 0], [1, 0], [2, 2], [2, 3], [3, 3]])
    assert positive_ranks(queries, gallery, pairs).tolist() == [0, 3, 2, 1]
    assert recalls(np.array([0, 3, 2, 1])).tolist() == [25.0, 100.0, 100.0]


def test_ties_stand_in_file_order() -> None:
    gallery = np.ones((3, 1), dtype=np.float32)
    queries = np.ones((3, 1), dtype=np.float32)
    assert positive_ranks(queries, gallery, np.array([[0, 0], [1, 1], [2, 2]])).tolist() == [0, 1, 2]


def test_recall_cutoffs_are_one_five_ten() -> None:
    assert recalls(np.array([0, 1, 4, 5, 9, 10])).tolist() == pytest.approx([100 / 6, 50.0, 500 / 6])


def test_a_query_without_positive_is_not_asked() -> None:
    places = positive_ranks(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32), np.array([[1, 0]]))
    assert places.tolist() == [-1, 0]
    assert recalls(places).tolist() == [100.0, 100.0, 100.0]


def test_nothing_to_ask_and_zero_features_are_refused() -> None:
    with pytest.raises(ValueError, match="no query"):
        recalls(np.array([-1, -1]))
    with pytest.raises(ValueError, match="zero or not finite"):
        l2_normalise(np.array([[0.0, 0.0], [1.0, 0.0]], dtype=np.float32))
    with pytest.raises(ValueError, match="zero or not finite"):
        l2_normalise(np.array([[np.nan, 0.0]], dtype=np.float32))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_naive_definition_for_any_chunk(data: st.DataObject) -> None:
    """Small integer features make many exact ties, where a wrong order would show."""
    queries, items, dim = (data.draw(st.integers(1, 9)) for _ in range(3))
    small = st.integers(-2, 2)
    q = np.array(data.draw(st.lists(small, min_size=queries * dim, max_size=queries * dim)), np.float32)
    g = np.array(data.draw(st.lists(small, min_size=items * dim, max_size=items * dim)), np.float32)
    pair = st.tuples(st.integers(0, queries - 1), st.integers(0, items - 1))
    pairs = np.array(data.draw(st.lists(pair, min_size=1, max_size=20)), np.int64)
    q, g = q.reshape(queries, dim), g.reshape(items, dim)
    chunk = data.draw(st.integers(1, 25))
    assert positive_ranks(q, g, pairs, chunk=chunk).tolist() == naive_ranks(q, g, pairs).tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_one_to_one_recall_does_not_depend_on_the_order_of_the_file(seed: int, size: int) -> None:
    generator = np.random.default_rng(seed)
    texts = l2_normalise(generator.normal(size=(size, 8)).astype(np.float32))
    images = l2_normalise(generator.normal(size=(size, 8)).astype(np.float32))
    pairs = np.stack([np.arange(size), np.arange(size)], axis=1)
    shuffle = generator.permutation(size)
    plain = recalls(positive_ranks(texts, images, pairs))
    moved = recalls(positive_ranks(texts[shuffle], images, np.stack([np.arange(size), shuffle], axis=1)))
    assert plain.tolist() == moved.tolist()
    assert plain[0] <= plain[1] <= plain[2]


def test_bootstrap_repeats_brackets_the_score_and_narrows_with_images() -> None:
    def drawn(images: int) -> NDArray[np.float64]:
        places = np.array([0, 7] * (images // 2))  # half of all queries hit at 1 and 5, all at 10
        pairs = np.stack([np.arange(images), np.arange(images)], axis=1)
        return bootstrap_recalls(image_table(places, places, pairs), draws=400)

    wide, narrow = drawn(20), drawn(2000)
    assert np.array_equal(wide, drawn(20))
    low, high = percentile_interval(narrow[:, 0])
    assert low < 50 < high
    # A binomial share of 1/2 over n images has the deviation 50 / sqrt(n) percent.
    assert narrow[:, 0].std() == pytest.approx(50 / 2000**0.5, rel=0.15)
    assert wide[:, 0].std() == pytest.approx(50 / 20**0.5, rel=0.15)
    assert np.allclose(narrow[:, 6], narrow[:, :6].mean(axis=1))
    assert percentile_interval(narrow[:, 2]) == (100.0, 100.0)


def test_bootstrap_moves_all_captions_of_an_image_together() -> None:
    # Image 0 has three captions that hit, image 1 one that does not: draws give 3 of 3, 3 of 4 or 0 of 1.
    pairs = np.array([[0, 0], [1, 0], [2, 0], [3, 1]])
    table = image_table(np.array([0, 0, 0, 50]), np.array([0, 50]), pairs)
    assert set(np.round(bootstrap_recalls(table, draws=300)[:, 0], 6)) == {100.0, 75.0, 0.0}


def test_an_image_without_captions_adds_nothing() -> None:
    table = image_table(np.array([0]), np.array([0, -1]), np.array([[0, 0]]))
    assert table.num_queries.tolist() == [[1.0] * 6, [0.0] * 6]
