"""What a password must be, and how it is kept (cases 4, 6, 7 and 8)."""

from __future__ import annotations

import asyncio
import threading

import pytest
from argon2 import PasswordHasher, extract_parameters

from worker.accounts import passwords, policy
from worker.errors import Invalid, Throttled


async def test_keeps_argon2id_with_at_least_owasps_parameters() -> None:  # case 7
    kept = await passwords.hash_password("a long enough one", "ada")
    found = extract_parameters(kept)
    assert kept.startswith("$argon2id$")
    assert (found.memory_cost, found.time_cost, found.parallelism) == (19_456, 2, 1)


async def test_a_hash_with_older_parameters_is_made_anew_when_the_password_was_right() -> None:  # case 7
    old = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("a long enough one")
    right, wrong = (
        await passwords.verify(old, "a long enough one"),
        await passwords.verify(old, "another one"),
    )
    assert right.right
    assert right.new_hash is not None
    assert extract_parameters(right.new_hash).memory_cost == 19_456
    assert (await passwords.verify(right.new_hash, "a long enough one")).new_hash is None
    assert wrong == passwords.Checked(right=False)


def test_an_unknown_name_costs_exactly_what_a_known_one_costs() -> None:  # case 4
    ours = extract_parameters(passwords._hasher.hash("x"))
    assert extract_parameters(passwords.NOBODY) == ours


@pytest.mark.parametrize("password", [None, "", "for-unknown-user", "x" * 200])
async def test_nobody_has_no_password(password: str | None) -> None:
    assert not (await passwords.verify(None, password or "")).right


@pytest.mark.parametrize(
    "password",
    [
        "seven77",
        "",
        "password",
        "1234567890",
        "trustno1",
        "PassWord",
        "qwertyuiop",
        "aaaaaaaaaaaa",
        "abcabcabcabc",
        "abcdefghijkl",
        "23456789",
        "lovelace",
        "LOVELACE",
        "ecalevol",
        "x" * 1001,
        "with\x00inside",
    ],
)
def test_refuses_short_known_patterned_and_own_names_as_passwords(password: str) -> None:  # case 8
    with pytest.raises(Invalid) as refused:
        policy.check_password(password, "lovelace")
    assert list(refused.value.problems) == ["password"]


def test_refuses_each_of_the_3000_most_used_passwords() -> None:  # case 8
    from zxcvbn.frequency_lists import FREQUENCY_LISTS

    for known in FREQUENCY_LISTS["passwords"][:3000]:
        with pytest.raises(Invalid):
            policy.check_password(known, "ada")


@pytest.mark.parametrize(
    "password", ["x7" * 60 + "tail-end", "zażółć gęślą jaźń", "パスワードを忘れない", "four plain words here"]
)
async def test_takes_long_ones_and_every_script_and_cuts_nothing_off(password: str) -> None:  # case 8
    kept = await passwords.hash_password(password, "ada")
    assert (await passwords.verify(kept, password)).right
    assert not (await passwords.verify(kept, password[:-1])).right


async def test_the_same_letters_typed_on_another_keyboard_are_the_same_password() -> None:
    kept = await passwords.hash_password("cafe\u0301 au lait", "ada")
    assert (await passwords.verify(kept, "caf\u00e9 au lait")).right


async def test_computes_two_at_once_and_sends_the_surplus_away() -> None:  # case 6
    release, running, most = threading.Event(), 0, 0
    lock = threading.Lock()

    def slow() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1

    tasks = [asyncio.create_task(passwords._in_thread(slow)) for _ in range(50)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    assert passwords.busy()
    while most < passwords.AT_ONCE:  # both threads are under way; the test's own time limit bounds this
        await asyncio.sleep(0.01)
    release.set()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert most == passwords.AT_ONCE == 2
    assert sum(isinstance(end, Throttled) for end in ends) == 50 - passwords.AT_ONCE - passwords.MOST_WAITING
    assert not passwords.busy()


@pytest.mark.parametrize(
    "name", ["Ada", "ada.lovelace@example.com", "Zażółć Gęślą", "x", "build-bot 7", "a+b"]
)
def test_takes_names_of_people_and_programs(name: str) -> None:
    assert policy.checked_name(f"  {name} ") == name


@pytest.mark.parametrize(
    "name", ["", " ", "<script>", "a\nb", "a\x00b", "-a", "a  b", "x" * 101, "a/b", "a\u202eb", "a;b"]
)
def test_refuses_names_that_could_be_mistaken_for_something_else(name: str) -> None:
    with pytest.raises(Invalid):
        policy.checked_name(name)
