"""Jobs are found in the modules that a worker was told to import; what is wrong with them is said by name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from worker import job
from worker.errors import BadJobDefinition, DuplicateJob, JobModuleError
from worker.jobs.registry import Registry

PROBE = "desk.probe"


class Folder:
    """A folder of a user's own modules, which is the current directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, code: str) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(code), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    before = set(sys.modules)
    yield Folder(tmp_path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def names(registry: Registry) -> list[str]:
    return [name for name in registry.names() if name != PROBE]


def test_modules_of_the_current_directory_are_found(folder: Folder) -> None:
    folder.write("shop_a.py", "from worker import job\n@job\ndef pack(order: int) -> None: ...\n")
    registry = Registry().discover(["shop_a"])
    assert names(registry) == ["pack"]
    assert registry.get("pack") is not None
    assert "shop_a" in registry.modules
    assert PROBE in registry.names()  # every worker offers the probe


def test_a_package_is_everything_in_it(folder: Folder) -> None:
    folder.write("shop_b/__init__.py", "")
    folder.write("shop_b/mail.py", "from worker import job\n@job\ndef mail() -> None: ...\n")
    folder.write("shop_b/deep/__init__.py", "from worker import job\n@job\ndef deep() -> None: ...\n")
    folder.write("shop_b/_private.py", "raise RuntimeError('not to be imported')\n")
    folder.write("shop_b/test_mail.py", "raise RuntimeError('not to be imported')\n")
    assert names(Registry().discover(["shop_b"])) == ["deep", "mail"]


def test_the_same_job_seen_from_two_modules_is_one(folder: Folder) -> None:
    folder.write("shop_c.py", "from worker import job\n@job\ndef pack() -> None: ...\n")
    folder.write("shop_d.py", "from shop_c import pack\nagain = pack\n")
    assert names(Registry().discover(["shop_c", "shop_d"])) == ["pack"]


def test_two_jobs_of_one_name_are_refused_naming_both_places(folder: Folder) -> None:
    folder.write("shop_e.py", "from worker import job\n@job(name='pack')\ndef one() -> None: ...\n")
    folder.write("shop_f.py", "from worker import job\n\n@job(name='pack')\ndef two() -> None: ...\n")
    with pytest.raises(DuplicateJob) as caught:
        Registry().discover(["shop_e", "shop_f"])
    words = str(caught.value)
    assert "shop_e:one" in words
    assert "shop_f:two" in words
    assert f"{folder.path / 'shop_f.py'}:3" in words


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_this_name\n", "No module named 'nothing_of_this_name'"),
        ("def broken(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_module_that_does_not_import_is_named_with_the_cause(folder: Folder, code: str, words: str) -> None:
    folder.write("shop_g.py", code)
    with pytest.raises(JobModuleError) as caught:
        Registry().discover(["shop_g"])
    assert "'shop_g'" in str(caught.value)
    assert words in str(caught.value)


def test_the_cause_names_the_line_in_the_users_code(folder: Folder) -> None:
    folder.write("shop_h.py", "from shop_i import x\n")
    folder.write("shop_i.py", "\n\nx = {}['gone']\n")
    with pytest.raises(JobModuleError, match=r"KeyError: 'gone' \(.*shop_i\.py:3\)"):
        Registry().discover(["shop_h"])


def test_a_module_that_is_not_there_says_where_it_was_looked_for(folder: Folder) -> None:
    with pytest.raises(JobModuleError, match="there is no module 'shop_z' in"):
        Registry().discover(["shop_z.jobs"])


def test_a_wrong_signature_is_found_at_start(folder: Folder) -> None:
    folder.write(
        "shop_j.py", "from worker import job\nclass Odd: ...\n@job\ndef pack(order: Odd) -> None: ...\n"
    )
    with pytest.raises(BadJobDefinition, match=r"'pack' .*'order' cannot be filled from JSON"):
        Registry().discover(["shop_j"])


def test_cron_jobs_of_a_module_are_schedules_of_its_jobs(folder: Folder) -> None:
    folder.write(
        "shop_k.py",
        """
        from worker import cron, job
        @job
        def report(pages: int = 1) -> None: ...
        cron_jobs = [cron("report", hour=9, minute=0, args={"pages": 2})]
        """,
    )
    made = Registry().discover(["shop_k"]).get("report")
    assert made is not None
    assert made.schedules == ({"cron": "0 9 * * *", "time_zone": "UTC", "args": {"pages": 2}},)


def test_a_cron_job_for_a_job_of_another_module_says_where_it_stands(folder: Folder) -> None:
    folder.write("shop_m.py", "from worker import job\n@job\ndef tidy() -> None: ...\n")
    folder.write("shop_n.py", "from worker import cron\ncron_jobs = [cron('tidy', hour=9)]\n")
    made = Registry().discover(["shop_m", "shop_n"]).get("tidy")
    assert made is not None
    assert [schedule["module"] for schedule in made.schedules] == ["shop_n"]


def test_a_cron_job_for_nothing_is_refused(folder: Folder) -> None:
    folder.write("shop_l.py", "from worker import cron\ncron_jobs = [cron('nobody', hour=9)]\n")
    with pytest.raises(BadJobDefinition, match=r"'nobody'.*the jobs are: desk\.probe"):
        Registry().discover(["shop_l"])


def test_tasks_of_a_taskiq_broker_of_ones_own_are_adopted(folder: Folder) -> None:
    folder.write(
        "shop_m.py",
        """
        from taskiq import InMemoryBroker
        mine = InMemoryBroker()
        @mine.task(task_name="theirs", max_retries=2, timeout=5, schedule=[{"cron": "0 1 * * *", "kwargs": {"a": 1}}])
        async def theirs(a: int) -> int:
            return a
        @mine.task
        def unnamed() -> None: ...
        """,
    )
    registry = Registry().discover(["shop_m"])
    assert names(registry) == ["shop_m.unnamed", "theirs"]
    made = registry.get("theirs")
    assert made is not None
    assert (made.max_retries, made.timeout_s) == (2, 5.0)
    assert made.schedules == ({"cron": "0 1 * * *", "time_zone": "UTC", "args": {"a": 1}},)
    assert made.validate({"a": 1}) == {"a": 1}
    ours = object()
    registry.bind(ours)
    task = sys.modules["shop_m"].unnamed
    assert task.broker is ours
    assert task.task_name == "shop_m.unnamed"


def test_jobs_may_be_given_without_modules() -> None:
    @job
    def here() -> None: ...

    registry = Registry([here])
    assert registry.names() == ["here"]
    assert registry.add(here) is registry.get("here")
    assert registry.get("there") is None
