"""The run directory: unique, never through a link, never over something that is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.rundir import Owner, RunDirectory, RunDirectoryRefused

ME = Owner(os.geteuid(), os.getegid())


def test_two_runs_of_the_same_second_get_directories_of_their_own(tmp_path: Path) -> None:
    runs = [RunDirectory.create("demo", ME, parent=tmp_path / "runs") for _ in range(5)]
    assert len({run.path for run in runs}) == 5
    for run in runs:
        assert run.path.is_dir()
        run.close()


def test_a_link_is_refused_and_its_target_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryRefused, match="is a link"):
        RunDirectory.create("demo", ME, out=tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_default_parent_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryRefused, match="is a link"):
        RunDirectory.create("demo", ME, parent=tmp_path / "runs")


def test_a_directory_with_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryRefused, match="not empty"):
        RunDirectory.create("demo", ME, out=tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunDirectoryRefused, match="not a directory"):
        RunDirectory.create("demo", ME, out=tmp_path / "out")


@pytest.mark.root
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, 12345, 12345)
    with pytest.raises(RunDirectoryRefused, match="another user"):
        RunDirectory.create("demo", ME, out=out)


@pytest.mark.root
def test_a_sudo_run_belongs_to_the_invoking_user(tmp_path: Path) -> None:
    owner = Owner.of_this_process({"SUDO_UID": "12345", "SUDO_GID": "12346"})
    run = RunDirectory.create("demo", owner, out=tmp_path / "out")
    os.close(run.make_directory("with"))
    run.write_text("with/keys.log", "secret", secret=True)
    (run.path / "with" / "stray").write_text("made by a program inside")
    run.give_to_owner()
    run.close()
    for entry in (tmp_path / "out", *(tmp_path / "out").rglob("*")):
        assert (entry.stat().st_uid, entry.stat().st_gid) == (12345, 12346), entry
    assert (tmp_path / "out" / "with" / "keys.log").stat().st_mode & 0o777 == 0o600


def test_a_file_is_not_made_through_a_link_that_appeared_meanwhile(tmp_path: Path) -> None:
    run = RunDirectory.create("demo", ME, out=tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    (run.path / "with").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        run.write_text("with/keys.log", "secret")
    run.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_discarded_run_takes_all_it_wrote_and_nothing_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("years of work")
    directory = RunDirectory.create("demo", ME, parent=tmp_path / "runs")
    os.close(directory.make_directory("with"))
    directory.write_text("with/notes", "half")
    (directory.path / "link").symlink_to(tmp_path / "thesis")
    directory.discard()
    directory.close()
    assert list((tmp_path / "runs").iterdir()) == []
    assert (tmp_path / "thesis/chapter.tex").read_text() == "years of work"


def test_a_directory_that_was_there_before_a_discarded_run_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    directory = RunDirectory.create("demo", ME, out=tmp_path / "out")
    directory.write_text("scenario.yaml", "title: x")
    directory.discard()
    directory.close()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_working_directory_that_is_gone_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(RunDirectoryRefused, match="has been removed"):
        RunDirectory.create("demo", ME, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "full"), [(0, True), (1, False)])
def test_a_directory_knows_whether_its_file_system_is_full(
    free: int, full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create("demo", ME, out=tmp_path / "out")
    told = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result((*told[:3], free, *told[4:])))
    assert run.is_full == full
    run.close()
