from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.retrieval.index import segment as module
from server.retrieval.index.segment import Segment
from server.words import term_counts


def vectors(count: int, dimension: int = 16, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def made(texts: list[str], *, first: int = 1, a_version: int = 1, seed: int = 0) -> Segment:
    """`a_version` rows of each version."""
    versions = [first + row // a_version for row in range(len(texts))]
    continues = [row % 3 == 2 for row in range(len(texts))]
    return Segment.build(versions, [term_counts(text) for text in texts], vectors(len(texts), seed=seed), continues)


def postings(segment: Segment, term: str) -> dict[int, int]:
    rows, counts = segment.postings_of(term)
    return dict(zip(rows.tolist(), counts.tolist(), strict=True))


def everything(segment: Segment) -> np.ndarray:
    return np.ones(len(segment), np.bool_)


def test_terms_are_found_with_their_frequencies() -> None:
    segment = made(["fig pear fig", "melon", "fig"])
    assert postings(segment, "fig") == {0: 2, 2: 1}
    assert postings(segment, "melon") == {1: 1}
    assert postings(segment, "nowhere") == {}
    assert segment.lengths.tolist() == [3, 1, 1]


def test_the_rows_of_a_version_are_contiguous() -> None:
    segment = made(["a", "b", "c", "d"], first=7, a_version=2)
    assert (segment.span(7), segment.span(8), segment.span(9)) == ((0, 2), (2, 4), (4, 4))
    assert segment.mask([8, 99]).tolist() == [False, False, True, True]
    assert segment.mask([]).tolist() == [False] * 4


def test_the_best_neighbour_is_a_row_of_the_same_text() -> None:
    terms = [term_counts("a")] * 6
    segment = Segment.build([1, 1, 1, 2, 2, 3], terms, vectors(6), [False, True, True, False, False, False])
    values = np.array([1, 5, 2, 7, 8, 9], np.float32)
    assert segment.best_neighbour(values).tolist() == [5, 2, 5, 7, 8, 9]
    assert Segment.build([1], terms[:1], vectors(1)).best_neighbour(values[:1]).tolist() == [1]


def test_a_written_segment_is_opened(tmp_path: Path) -> None:
    segment = made(["fig pear", "환불은 사십오 일"])
    opened = Segment.open(tmp_path / "s", *segment.write(tmp_path / "s"))
    for name in module._ARRAYS:
        assert np.array_equal(getattr(opened, name), getattr(segment, name)), name
    assert opened.nearest(segment.vectors[1], 1, everything(opened)).tolist() == [1]


def test_an_empty_one_is_opened_too(tmp_path: Path) -> None:
    segment = made([""])
    opened = Segment.open(tmp_path / "s", *segment.write(tmp_path / "s"))
    assert postings(opened, "fig") == {}


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:70] + b"!" + data[71:]]
)
def test_damage_is_detected(tmp_path: Path, damage) -> None:
    path = tmp_path / "s"
    layout, checksum = made(["fig", "pear"]).write(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="checksum"):
        Segment.open(path, layout, checksum)


def test_the_nearest_are_those_of_the_mask() -> None:
    segment = made([f"text {number}" for number in range(50)])
    mask = everything(segment)
    cosines = segment.vectors @ segment.vectors[7]
    assert segment.nearest(segment.vectors[7], 5, mask).tolist() == np.argsort(-cosines)[:5].tolist()
    mask[7] = False
    assert 7 not in segment.nearest(segment.vectors[7], 5, mask).tolist()
    assert segment.nearest(segment.vectors[7], 5, np.zeros(50, np.bool_)).tolist() == []
    assert np.allclose(segment.cosines(segment.vectors[7], np.array([3, 7])), cosines[[3, 7]])


def test_many_rows_are_searched_in_lists_and_hardly_any_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 1000)
    rng = np.random.default_rng(1)
    centres = vectors(40, 32)
    drawn = centres[rng.integers(0, 40, 4000)] + 0.3 * vectors(4000, 32, seed=2)
    drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    segment = Segment.build(list(range(4000)), [Counter({"x": 1})] * 4000, drawn)
    assert len(segment.coarse)
    found = asked = 0
    for row in range(0, 4000, 100):
        exact = np.argsort(-(drawn @ drawn[row]))[:10]
        found += len(set(segment.nearest(drawn[row], 10, everything(segment)).tolist()) & set(exact.tolist()))
        asked += 10
    assert found >= 0.9 * asked


def test_few_rows_of_a_mask_among_many_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXACT_ROWS", 1000)
    drawn = vectors(4000, 32)
    segment = Segment.build(list(range(4000)), [Counter({"x": 1})] * 4000, drawn)
    mask = segment.mask(range(0, 4000, 200))
    assert sorted(segment.nearest(drawn[1], 20, mask).tolist()) == list(range(0, 4000, 200))


TEXTS = st.lists(st.text("abc ", max_size=12), min_size=1, max_size=6)


@given(TEXTS, TEXTS, st.data())
@settings(deadline=None)
def test_a_merged_segment_has_the_rows_of_its_parts(one: list[str], other: list[str], data: st.DataObject) -> None:
    parts = [made(one, first=1), made(other, first=100, seed=1)]
    masks = [np.array(data.draw(st.lists(st.booleans(), min_size=len(part), max_size=len(part))), np.bool_)
             for part in parts]  # fmt: skip
    order = data.draw(st.permutations([0, 1]))
    if not any(mask.any() for mask in masks):
        return
    merged = Segment.merge([(parts[at], masks[at]) for at in order])
    expected = [(parts[at], row) for at in (0, 1) for row in np.flatnonzero(masks[at])]
    assert len(merged) == len(expected)
    for row, (part, old) in enumerate(expected):
        assert merged.versions[row] == part.versions[old]
        assert merged.lengths[row] == part.lengths[old]
        assert merged.continues[row] == part.continues[old]
        assert np.array_equal(merged.vectors[row], part.vectors[old])
    texts = [(one, other)[at][row] for at in (0, 1) for row in np.flatnonzero(masks[at])]
    for term in ("a", "b", "ab", "abc", "c", "cc"):
        counts = {row: term_counts(text)[term] for row, text in enumerate(texts) if term_counts(text)[term]}
        assert postings(merged, term) == counts
