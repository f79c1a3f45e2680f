"""What cosines say: on made-up vectors whose relation is known, and on the default model, with records left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from server.embedding import Calibration, SentenceEmbedder, TextEncoder, read_pairs
from server.embedding.calibration import calibrate
from server.embedding.embedder import SHIPPED, find_calibration
from server.relations import Relation, TextRole
from server.words import detect_script
from tests.tiers import cases

PAIRS = read_pairs()


class Cone:
    """Vectors of a narrow cone of its own for each script, in which a record's texts lie about one direction."""

    def __init__(self, records: Sequence[dict[str, str]]) -> None:
        drawn = np.random.default_rng(7)
        self._of = {text: at for at, record in enumerate(records) for text in record.values()}
        self._subjects = drawn.standard_normal((len(records) + 1, 64))
        self._cones = {script: 20 * drawn.standard_normal(64) for script in ("latin", "hangul", "other")}
        self._drawn = drawn

    def __call__(self, texts: Sequence[str], role: TextRole) -> NDArray[np.float32]:
        found = []
        for text in texts:
            script = detect_script(text)
            cone = self._cones.get(script, self._cones["other"])
            subject = self._subjects[self._of.get(text, len(self._subjects) - 1)]
            found.append(cone + subject + 0.3 * self._drawn.standard_normal(64))
        vectors = np.array(found)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def cone() -> tuple[Cone, Calibration]:
    embed = Cone(PAIRS[:60])
    return embed, calibrate(embed, PAIRS[:60])


def test_texts_of_different_subjects_are_far_apart_once_the_cone_is_taken_away(cone: tuple[Cone, Calibration]) -> None:
    embed, calibration = cone
    questions, passages = ([record[key] for record in PAIRS[:60]] for key in ("question_en", "passage_ko"))
    raw = embed(questions, TextRole.QUERY), embed(passages, TextRole.PASSAGE)
    others = ~np.eye(60, dtype=bool)
    left = calibration.centred(raw[0], questions, TextRole.QUERY)
    right = calibration.centred(raw[1], passages, TextRole.PASSAGE)
    assert abs(float((left @ right.T)[others].mean())) < 0.05
    assert float(np.diag(left @ right.T).mean()) > 0.8
    assert np.allclose(np.linalg.norm(left, axis=1), 1, atol=1e-5)


def test_a_likelihood_rises_with_the_cosine_and_tells_answers_from_the_rest(cone: tuple[Cone, Calibration]) -> None:
    _, calibration = cone
    cosines = np.linspace(-1, 1, 50).astype(np.float32)
    for relation in Relation:
        for crossing in (False, True):
            likely = calibration.likelihood(relation, cosines, crossing=crossing)
            assert (np.diff(likely) >= 0).all()
            assert likely[0] < 0.1
            assert likely[-1] > 0.5
    mixed = calibration.likelihood(Relation.ANSWER, cosines[:2], crossing=np.array([True, False]))
    assert mixed.shape == (2,)


def test_a_text_in_two_scripts_loses_a_share_of_both_means(cone: tuple[Cone, Calibration]) -> None:
    _, calibration = cone
    means = [calibration.means[TextRole.TEXT, script] for script in ("latin", "hangul")]
    vector = np.eye(1, 64, dtype=np.float32)
    found = calibration.centred(vector, ["배송 ship"], TextRole.TEXT)[0]
    expected = vector[0] - (means[0] + means[1]) / 2
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_it_comes_back_from_its_bytes_the_same(cone: tuple[Cone, Calibration]) -> None:
    _, calibration = cone
    again = Calibration.from_bytes(calibration.to_bytes())
    assert again.curves == calibration.curves
    assert again.known == calibration.known
    assert all(np.array_equal(again.means[key], mean) for key, mean in calibration.means.items())
    with pytest.raises(ValueError, match="curves"):
        Calibration.from_bytes(Calibration().to_bytes())


def test_a_file_that_cannot_be_read_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "abc.npz").write_bytes(b"broken")
    assert find_calibration("abc", tmp_path) is None
    assert "abc.npz cannot be used" in caplog.text


@pytest.mark.model
def test_both_models_that_ship_have_theirs(embedder_dir: Path, english_embedder_dir: Path) -> None:
    """Else each first start would measure for half a minute."""
    for folder in (embedder_dir, english_embedder_dir):
        fingerprint = TextEncoder(str(folder)).fingerprint
        assert (SHIPPED / f"{fingerprint}.npz").is_file(), fingerprint


@pytest.mark.model
def test_what_was_measured_on_some_records_holds_on_others(embedder_dir: Path) -> None:
    encoder = TextEncoder(str(embedder_dir))
    measured, held = PAIRS[:: cases(8, 4)], PAIRS[1 :: cases(8, 4)]
    calibration = calibrate(encoder.embed, measured)
    for asked, told in (("en", "en"), ("ko", "ko"), ("ko", "en")):
        questions, passages = [one[f"question_{asked}"] for one in held], [one[f"passage_{told}"] for one in held]
        left = calibration.centred(encoder.embed(questions, TextRole.QUERY), questions, TextRole.QUERY)
        right = calibration.centred(encoder.embed(passages, TextRole.PASSAGE), passages, TextRole.PASSAGE)
        likely = calibration.likelihood(Relation.ANSWER, left @ right.T, crossing=asked != told)
        own = np.eye(len(held), dtype=bool)
        assert float((likely[own] > 0.5).mean()) >= 0.85
        assert float((likely[~own] > 0.5).mean()) < 0.12


@pytest.mark.model
@pytest.mark.usefixtures("few_texts_to_measure")
def test_another_model_is_measured_once_and_kept(english_embedder_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    exact = SentenceEmbedder(str(english_embedder_dir), quantize=False, calibrations=tmp_path, report=lines.append)
    assert len(lines) == 1
    assert "once" in lines[0]
    again = SentenceEmbedder(str(english_embedder_dir), quantize=False, calibrations=tmp_path, report=lines.append)
    assert len(lines) == 1
    assert again.fingerprint == exact.fingerprint
