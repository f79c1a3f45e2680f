from __future__ import annotations

from pathlib import Path

import pytest

from server.engine import AdapterCatalogue
from server.errors import AdapterNotFound


def put(root: Path, path: str, text: str = "x") -> Path:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(text)
    return folder


def names(catalogue: AdapterCatalogue) -> list[str]:
    return [f"{folder.name}@{folder.version}" for folder in catalogue.folders()]


def test_versions_stand_in_natural_order_newest_first(tmp_path: Path) -> None:
    for version in ("1", "9", "10", "1.2", "1.10", "beta"):
        put(tmp_path, f"law/{version}")
    put(tmp_path, "alpha/2024-01-02")
    put(tmp_path, "alpha/2023-12-31")
    assert names(AdapterCatalogue(tmp_path)) == [
        "alpha@2024-01-02",
        "alpha@2023-12-31",
        "law@10",
        "law@9",
        "law@1.10",
        "law@1.2",
        "law@1",
        "law@beta",
    ]


def test_a_missing_root_is_empty(tmp_path: Path) -> None:
    catalogue = AdapterCatalogue(tmp_path / "none")
    assert catalogue.folders() == ()
    with pytest.raises(AdapterNotFound, match="holds none"):
        catalogue.find("law")


def test_find_by_name_and_by_version(tmp_path: Path) -> None:
    put(tmp_path, "law/1")
    put(tmp_path, "law/2")
    catalogue = AdapterCatalogue(tmp_path)
    assert [folder.version for folder in catalogue.find("law")] == ["2", "1"]
    assert [folder.version for folder in catalogue.find("law@1")] == ["1"]
    for spec in ("law@3", "other"):
        with pytest.raises(AdapterNotFound, match="law"):
            catalogue.find(spec)


@pytest.mark.parametrize(
    "spec", ["", ".", "..", "../law", "law/1", "law@../1", "law@", "@1", "/etc", "LAW", "가", "a" * 65, "law@1\n"]
)
def test_what_is_no_id_never_reaches_the_disk(tmp_path: Path, spec: str, monkeypatch) -> None:
    put(tmp_path, "law/1")
    monkeypatch.setattr(Path, "is_dir", lambda self: pytest.fail("the disk was asked"))
    with pytest.raises(AdapterNotFound, match="is no adapter id"):
        AdapterCatalogue(tmp_path).find(spec)


def test_a_change_of_a_file_changes_the_signature(tmp_path: Path) -> None:
    put(tmp_path, "law/1")
    catalogue = AdapterCatalogue(tmp_path)
    before = catalogue.find("law")[0]
    assert catalogue.find("law")[0] == before
    put(tmp_path, "law/1", "longer")
    assert catalogue.find("law")[0].key != before.key


def test_misplaced_and_misnamed_folders_are_shown_with_their_problem(tmp_path: Path) -> None:
    put(tmp_path, "My Adapter/1")
    put(tmp_path, "bare")
    put(tmp_path, "law/Version One")
    put(tmp_path, ".building/1")
    put(tmp_path, "law/.tmp")
    (tmp_path / "file.txt").write_text("no folder")
    problems = {folder.name: folder.problem for folder in AdapterCatalogue(tmp_path).folders()}
    assert set(problems) == {"My Adapter", "bare", "law"}
    assert "may hold" in problems["My Adapter"]
    assert "bare/1/" in problems["bare"]
    assert "version's name" in problems["law"]


def test_a_link_out_of_the_root_is_a_problem(tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/1")
    root = tmp_path / "adapters"
    (root / "law").mkdir(parents=True)
    (root / "law" / "1").symlink_to(outside)
    (root / "tax").symlink_to(tmp_path / "outside")
    assert all("outside" in folder.problem for folder in AdapterCatalogue(root).folders())
