"""One at a time: what the lock keeps out, and what it never holds back."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

from fenlei.errors import ConfigError
from fenlei.locks import alone_at

TAKEN = ConfigError("somebody is at it")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="takes the locks of POSIX")


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise KeyError


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "folder" / ".lock"
    for _ in range(2):
        with alone_at(lock, TAKEN):
            assert lock.exists()
            with pytest.raises(ConfigError, match="somebody is at it"), alone_at(lock, TAKEN):
                pytest.fail("two at once")
            with alone_at(lock.with_name(".another"), TAKEN):
                pass
        assert list(tmp_path.iterdir()) == [], "nor a folder that was made for it"


def test_a_folder_that_was_there_or_is_used_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with alone_at(tmp_path / "there" / ".lock", TAKEN):
        pass
    with pytest.raises(KeyError), alone_at(tmp_path / "used" / ".lock", TAKEN):
        fail_half_way(tmp_path / "used" / "rows")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["there", "used", "used/rows"]


def test_a_file_that_a_killed_process_left_holds_nobody_back(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with alone_at(tmp_path / ".lock", TAKEN):
        pass
    assert list(tmp_path.iterdir()) == []


def test_where_there_are_no_locks_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "file").write_text("")
    with alone_at(tmp_path / "file" / ".lock", TAKEN), alone_at(tmp_path / "file" / ".lock", TAKEN):
        pass
    monkeypatch.setattr("fcntl.flock", unknown)
    with alone_at(tmp_path / ".lock", TAKEN), alone_at(tmp_path / ".lock", TAKEN):
        pass
