from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from server.config import RetrievalSettings
from server.relations import Relation, TextRole
from server.retrieval.index.chunker import ChunkText
from server.retrieval.index.files import Chunk, FileKey, FileRecord, FileState, identify_chunks
from server.retrieval.index.generation import FileVersion, Generation
from server.retrieval.index.segment import Segment
from server.retrieval.search.results import Candidate
from server.retrieval.search.searcher import Searcher, SearchFilter
from server.types import Embedder, Passage
from server.words import term_counts
from tests.fakes import WordEmbedder
from tests.tiers import cases

# the fake embedder counts function words as words, so its cosines are higher than a real one's
SETTINGS = RetrievalSettings(passages=3)
Files = dict[tuple[str, str], Sequence[str]]

SHOP: Files = {
    ("shop", "returns.md"): [
        "Returns are accepted within 45 days of delivery.",
        "Refunds reach a card within five working days.",
    ],
    ("shop", "museum.md"): [
        "The entrance fee of the museum is 12 euro for adults.",
        "The entrance fee of the museum is 5 euro for children.",
        "The garden has a playground for children and dogs.",
    ],
    ("legal", "terms.md"): ["Returns under these terms need a signed delivery note."],
    ("ko", "배송.md"): [
        "반품은 상품을 받은 날부터 45일 안에 신청하실 수 있습니다.",
        "배송비는 삼천 원이며 오만 원부터 무료입니다.",
    ],
}


def generation(files: Files, embedder: Embedder | None = None, *, continued: bool = False) -> Generation:
    """A segment for each folder. `continued`: the texts of a file are one."""
    embedder = embedder or WordEmbedder()
    versions: list[FileVersion] = []
    texts: dict[int, tuple[Chunk, ...]] = {}
    segments: dict[int, tuple[str, Segment]] = {}
    for at, folder in enumerate(sorted({folder for folder, _ in files}), 1):
        inside: list[tuple[int, Chunk]] = []
        for key in (FileKey(*place) for place in files if place[0] == folder):
            pieces = [
                ChunkText(text, (), row, row, None, continues=continued and row > 1)
                for row, text in enumerate(files[key.folder, key.file], start=1)
            ]
            number = len(versions) + 1
            texts[number] = identify_chunks(key, pieces)
            record = FileRecord(FileState.INDEXED, mtime_ns=number * 10**9)
            versions.append(FileVersion(number, key, record, len(pieces), at if pieces else None))
            inside += [(number, chunk) for chunk in texts[number]]
        if inside:
            segments[at] = folder, Segment.build(
                [number for number, _ in inside], [term_counts(chunk.searched_text) for _, chunk in inside],
                embedder.embed([chunk.embedded_text for _, chunk in inside]),
                [chunk.continues for _, chunk in inside],
            )  # fmt: skip
    built = Generation.build(1, versions, segments, lambda version, place: texts[version][place])
    built.check_integrity()
    return built


def ask(
    query: str, *folders: str, previous_query: str = "", files: Files = SHOP, given: RetrievalSettings = SETTINGS
) -> list[str]:
    found = passages(query, *folders, previous_query=previous_query, files=files, given=given)
    return [passage.text for passage in found]


def passages(
    query: str,
    *folders: str,
    previous_query: str = "",
    files: Files = SHOP,
    given: RetrievalSettings = SETTINGS,
    continued: bool = False,
) -> tuple[Passage, ...]:
    embedder = WordEmbedder()
    built = generation(files, embedder, continued=continued)
    return Searcher(built, folders or ("shop",), embedder, given).search(query, previous_query)[0]


def test_the_best_passage_comes_first_with_its_location() -> None:
    best = passages("How many days are returns accepted?")[0]
    assert (best.folder, best.file, best.line_start) == ("shop", "returns.md", 1)
    assert best.text == "Returns are accepted within 45 days of delivery."
    assert 0 < best.score <= 1


def test_only_the_folders_asked_are_searched() -> None:
    assert all("museum" not in text for text in ask("entrance fee museum returns", "legal"))
    both = {passage.folder for passage in passages("returns delivery", "legal", "shop")}
    assert both == {"legal", "shop"}
    assert ask("returns", "nowhere") == []
    assert Searcher(generation(SHOP), (), WordEmbedder(), SETTINGS).search("returns")[0] == ()


def test_other_folders_do_not_change_a_score() -> None:
    alone = {key: texts for key, texts in SHOP.items() if key[0] == "shop"}
    assert passages("entrance fee for children") == passages("entrance fee for children", files=alone)


@pytest.mark.parametrize(
    "query", ["What is the capital of France?", "thanks!", "", "   ", "hello", "?!", "2 + 2", "오늘 날씨 어때?", "why?"]
)
def test_what_the_files_do_not_say_finds_nothing(query: str) -> None:
    assert ask(query, "shop", "legal", "ko") == []


def test_korean_is_found_without_an_embedder_that_knows_it() -> None:
    assert ask("반품은 며칠 안에 해야 하나요?", "ko")[0].startswith("반품은")
    assert ask("배송비가 얼마예요?", "ko") == ["배송비는 삼천 원이며 오만 원부터 무료입니다."]
    assert ask("대한민국의 수도는 어디인가요?", "ko") == []


class Blind(WordEmbedder):
    """Every text has the same vector, which says everything is near everything."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self._known = known

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        super().embed(texts, role)
        return np.tile(np.eye(1, self.dimension, dtype=np.float32), (len(texts), 1))

    def knows(self, text: str) -> bool:
        return self._known


def test_a_language_the_embedder_does_not_know_gets_no_dense_vote() -> None:
    blind = Blind(known=False)
    built = generation(SHOP, blind)
    before = blind.embedded
    searcher = Searcher(built, ("shop",), blind, SETTINGS)
    assert searcher.search("capital of France")[0] == ()
    assert searcher.search("entrance fee children")[0][0].text.endswith("5 euro for children.")
    assert blind.embedded == before
    known = Blind(known=True)
    assert len(Searcher(generation(SHOP, known), ("shop",), known, SETTINGS).search("capital of France")[0]) > 0


def test_the_dense_side_alone_can_find() -> None:
    class Synonyms(WordEmbedder):
        def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
            return super().embed([text.replace("swap", "exchanged") for text in texts])

    files: Files = {("shop", "a.md"): ["Goods are not exchanged", "The lamp is brass"]}
    embedder = Synonyms()
    found = Searcher(generation(files, embedder), ("shop",), embedder, SETTINGS).search("swap goods?")[0]
    assert [passage.text for passage in found] == ["Goods are not exchanged"]


def test_gates_are_settings() -> None:
    strict = SETTINGS.model_copy(update={"min_likelihood": 1.0})
    loose = SETTINGS.model_copy(update={"min_likelihood": 0.01})
    query = "entrance fee for grandparents"
    assert ask(query, given=strict) == []
    assert ask(query, given=loose) != []


class Fixed(WordEmbedder):
    """All passages have this cosine with all questions, which is so likely to answer."""

    def __init__(self, cosine: float, answers: float) -> None:
        super().__init__()
        self._cosine, self._answers = cosine, answers

    def embed(self, texts: Sequence[str], role: TextRole = TextRole.TEXT) -> NDArray[np.float32]:
        side = np.sqrt(1 - self._cosine**2)
        return np.array([[1, 0] if role is TextRole.QUERY else [self._cosine, side] for _ in texts], np.float32)

    def likelihood(
        self, relation: Relation, cosines: NDArray[np.float32], *, crossing: NDArray[np.bool_] | bool = False
    ) -> NDArray[np.float32]:
        return np.full_like(cosines, self._answers)


def test_a_cosine_counts_as_much_as_its_embedder_makes_of_it() -> None:
    """One under which everything is near everything gives nothing for it."""

    def best(cosine: float, answers: float) -> Candidate:
        embedder = Fixed(cosine, answers)
        built = generation({("shop", "a.md"): ["something"]}, embedder)
        _, trace = Searcher(built, ("shop",), embedder, SETTINGS).search("question", traced=True)
        return next(iter(trace.candidates), None)

    narrow, wide = best(0.9, 0.99), best(0.3, 0.99)
    assert (narrow.fused, narrow.dense, narrow.likelihood) == (wide.fused, wide.dense, wide.likelihood)
    assert narrow.dense == pytest.approx(0.99, abs=1e-3)
    assert best(0.9, 0.9999).fused > narrow.fused > 0
    assert best(0.9, 0.01) is None


def test_neighbours_of_a_chunk_show_its_topic() -> None:
    """Of two chunks that say the same, the one in the text on the subject comes first."""
    same = "It takes three days in summer."
    files: Files = {
        ("shop", "a.md"): [same, "The garden has a playground."],
        ("shop", "b.md"): [f"{same} ", "The delivery of a parcel."],
    }
    question = "How many days takes delivery in summer?"
    apart, joined = ([(one.file, one.score) for one in passages(question, files=files, continued=continued)[:2]]
                     for continued in (False, True))  # fmt: skip
    assert apart[0][0] == "a.md"  # by name alone
    assert joined[0][0] == "b.md"


def test_a_follow_up_takes_its_subject_from_the_message_before() -> None:
    previous = "What is the entrance fee of the museum?"
    first = ask("and for children?", previous_query=previous)[0]
    assert first == "The entrance fee of the museum is 5 euro for children."
    assert len(ask("why?", previous_query=previous)) > 0
    assert ask("why?") == []


def test_a_new_subject_leaves_the_message_before() -> None:
    previous = "What is the entrance fee of the museum?"
    assert ask("Which capital has France?", previous_query=previous) == []
    assert ask("thanks, that is great", previous_query=previous) == []
    question = "Within how many working days do refunds reach a credit card account?"
    assert ask(question, previous_query=previous) == ask(question)


def test_near_copies_are_shown_once() -> None:
    text = "Returns are accepted within 45 days of delivery to the customer by our own courier service."
    files: Files = {
        ("shop", "a.md"): [text, "Returns of gifts are accepted until February."],
        ("shop", "b.md"): [text.upper(), text.replace("our own", "our very own")],
    }
    found = passages("When are returns accepted?", files=files)
    assert sorted((passage.file, passage.line_start) for passage in found) == [("a.md", 1), ("a.md", 2)]


def test_at_most_so_many_passages_as_set() -> None:
    files: Files = {("shop", "a.md"): [f"returns rule {name}" for name in ("one", "two", "six", "ten", "red", "blue")]}
    assert len(ask("returns rule", files=files)) == 3
    assert len(ask("returns rule", files=files, given=SETTINGS.model_copy(update={"passages": 5}))) == 5


def test_what_is_far_behind_the_best_is_left_out() -> None:
    files: Files = {
        ("shop", "a.md"): ["battery warranty lasts three years", "the warranty card is green, keep it with the bill"]
    }
    assert ask("battery warranty years", files=files) == ["battery warranty lasts three years"]


def test_ties_are_ordered_by_file_and_position() -> None:
    files: Files = {("shop", name): [f"returns {name[0]}"] for name in ("c.md", "a.md", "b.md")}
    order = [passage.file for passage in passages("returns", files=files)]
    assert order == ["a.md", "b.md", "c.md"]


def test_a_huge_question_is_answered_soon() -> None:
    query = "entrance fee for children? " + " ".join(f"word{number}" for number in range(100_000))
    assert isinstance(ask(query), list)


def test_lexical_candidates_get_their_cosine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passage that only the lexical side brings in still gets its true cosine."""
    files: Files = {("a", "1.md"): ["fig plum"], ("b", "2.md"): ["fig", "melon fig pear"]}
    whole = passages("fig pear", "a", "b", files=files)
    monkeypatch.setattr("server.retrieval.search.scoring.CANDIDATES", 1)
    narrow = passages("fig pear", "a", "b", files=files)
    assert narrow[0] == whole[0]
    assert narrow[0].text == "melon fig pear"


WORDS = ["fig", "plum", "pear", "melon", "returns", "반품은", "배송", "45"]


@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12),
    query=st.lists(st.sampled_from([*WORDS, "and", "how", "absent"]), max_size=5).map(" ".join),
    previous_query=st.sampled_from(["", "fig", "반품은 언제?"]),
)
@settings(max_examples=cases(100, 2_000), deadline=None)
def test_results_are_ordered_bounded_and_repeatable(texts: list[str], query: str, previous_query: str) -> None:
    files: Files = {("shop", "a.md"): texts[::2], ("ko", "b.md"): texts[1::2]}
    found = passages(query, "shop", "ko", previous_query=previous_query, files=files)
    assert found == passages(query, "ko", "shop", "ko", previous_query=previous_query, files=files)
    scores = [passage.score for passage in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert len(found) <= SETTINGS.passages
    assert len({passage.text for passage in found}) == len(found)


# ── narrowing ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("filters", "files"),
    [
        (SearchFilter(), {"returns.md", "museum.md", "notes/fees.txt"}),
        (SearchFilter(files=("notes/*",)), {"notes/fees.txt"}),
        (SearchFilter(files=("m*", "r*")), {"returns.md", "museum.md"}),
        (SearchFilter(kinds=("txt",)), {"notes/fees.txt"}),
        (SearchFilter(since=2.0), {"museum.md", "notes/fees.txt"}),
        (SearchFilter(until=2.0), {"returns.md", "museum.md"}),
        (SearchFilter(kinds=("pdf",)), set()),
    ],
)
def test_a_search_can_be_narrowed_to_files(filters: SearchFilter, files: set[str]) -> None:
    about: Files = {
        ("shop", "returns.md"): ["The fee of returns is 3 euro."],
        ("shop", "museum.md"): ["The fee of the museum is 5 euro."],
        ("shop", "notes/fees.txt"): ["Every fee is due in May, in euro."],
    }
    embedder = WordEmbedder()
    searcher = Searcher(generation(about, embedder), ("shop",), embedder, SETTINGS, filters=filters)
    assert {passage.file for passage in searcher.search("which fee in euro")[0]} == files


def test_deleted_files_are_not_found() -> None:
    embedder = WordEmbedder()
    deleted = {FileKey("shop", "museum.md"), FileKey("shop", "never-there.md")}
    searcher = Searcher(generation(SHOP, embedder), ("shop",), embedder, SETTINGS, deleted=deleted)
    assert searcher.search("entrance fee of the museum")[0] == ()


# ── why ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_trace_has_the_fate_of_each_candidate() -> None:
    files = SHOP | {("shop", "again.md"): ["The entrance fee of the museum is 12 euro for all adults."]}
    embedder = WordEmbedder()
    given = SETTINGS.model_copy(update={"passages": 1})
    found, trace = Searcher(generation(files, embedder), ("shop",), embedder, given).search(
        "accepted entrance fee of the museum for adults", traced=True
    )
    told = {candidate.passage.text: candidate for candidate in trace.candidates}
    assert [one.passage for one in trace.candidates if one.fate == "used"] == list(found)
    adults, again, children, days = (
        told[text] for text in (SHOP["shop", "museum.md"][0], files["shop", "again.md"][0],
                                SHOP["shop", "museum.md"][1], SHOP["shop", "returns.md"][0])
    )  # fmt: skip
    assert {adults.fate, again.fate} == {"used", "near copy"}
    assert (children.fate, days.fate) == ("beyond the limit", "far below the best")
    assert [one.fused_rank for one in trace.candidates] == list(range(1, len(trace.candidates) + 1))
    fused = [one.fused for one in trace.candidates]
    assert fused == sorted(fused, reverse=True)
    for one in trace.candidates:
        assert one.dense is not None
        assert 0 <= one.dense <= 1
        assert 0 <= one.likelihood <= 1
        assert 0 < one.fused <= 1
        assert (one.gate != "") == (one.likelihood >= SETTINGS.min_likelihood)
    best = trace.candidates[0]
    assert best.likelihood >= SETTINGS.min_likelihood > trace.candidates[-1].likelihood
    assert trace.queries == ("accepted entrance fee of the museum for adults",)
    assert (trace.dense_weight, trace.rows) == (SETTINGS.dense_weight, 6)


def test_a_trace_shows_what_was_not_enough() -> None:
    embedder = WordEmbedder()
    found, trace = Searcher(generation(SHOP, embedder), ("shop",), embedder, SETTINGS).search(
        "how tall is the tower for children in Pisa really, and who built it long ago", traced=True
    )
    assert found == ()
    assert trace.candidates
    assert {(one.fate, one.gate) for one in trace.candidates} == {("no evidence", "")}


def test_a_trace_shows_that_the_previous_message_counted() -> None:
    embedder = WordEmbedder()
    found, trace = Searcher(generation(SHOP, embedder), ("shop",), embedder, SETTINGS).search(
        "And for children?", "What is the entrance fee of the museum?", traced=True
    )
    assert found[0].text.endswith("5 euro for children.")
    assert len(trace.queries) == 2


def test_a_foreign_question_has_no_dense_side() -> None:
    embedder = WordEmbedder()
    searcher = Searcher(generation(SHOP, embedder), ("ko",), embedder, SETTINGS)
    _, trace = searcher.search("반품은 며칠 안에 하나요", traced=True)
    assert trace.dense_weight == 0
    assert {one.dense for one in trace.candidates} == {None}


def test_the_vectors_of_another_embedder_are_not_used() -> None:
    embedder = WordEmbedder()
    built = generation(SHOP, embedder)
    asked = embedder.embedded
    found, _ = Searcher(built, ("shop",), embedder, SETTINGS, dense=False).search("entrance fee for children")
    assert found[0].text.endswith("5 euro for children.")
    assert embedder.embedded == asked
