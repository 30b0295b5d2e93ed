#!/usr/bin/env python3
"""The way in on a fresh machine: `./m dev`, `./m test`, and every command of the installed `m` (Windows: `py m dev`).

Needs a Python and nothing else. It builds `.venv` from the pinned, hashed requirements beside it, remembers what it built in a stamp,
and hands over. The file parses on Python 3.6, so that an old `python3` on PATH can still look for a newer one.
"""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
TOOLS = os.path.join(ROOT, ".tools")
WINDOWS = os.name == "nt"
SCRIPTS = os.path.join(VENV, "Scripts" if WINDOWS else "bin")
PYTHON = os.path.join(SCRIPTS, "python.exe" if WINDOWS else "python")
OLDEST, NEWEST = (3, 11), (3, 14)
RUNTIME, DEV = "requirements.lock", "requirements-dev.lock"

# A file's tests together, the long files first. Three at a time, since those wait for processes to start, drain and end.
TESTS = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder", "tests"]
# One has the desk on SQLite, the other the desk on PostgreSQL.
E2E = ["-n", "2", "--dist", "loadscope", "e2e"]

USAGE = """usage: ./m dev [--port N] [--jobs MODULES] [--memory] [--reload]   the whole desk on this machine
       ./m test [pytest arguments]    check, tests and e2e; with arguments only those tests
       ./m check                      ruff, mypy, import contracts
       ./m e2e [pytest arguments]     the browser ring alone
       ./m chaos [--seed N] [pytest arguments]   the storms in their full size: processes and servers are killed under load
       ./m COMMAND ...                anything else goes to the installed m: ./m --help
"""


def main(arguments):
    for_stop = getattr(signal, "SIGTERM", None)
    signal.signal(for_stop, lambda *_: sys.exit(143))  # so that a running child is ended, not orphaned
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in ("", "-h"):
        sys.stdout.write(USAGE)
        return 0 if verb else 2
    verbs = {"test": test, "check": check, "e2e": e2e, "chaos": chaos}
    ensure_environment(DEV if verb in verbs else RUNTIME)
    if verb in verbs:
        os.chdir(ROOT)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would each compile everything anew
        return verbs[verb](rest)
    return hand_over(os.path.join(SCRIPTS, "m"), arguments)


def hand_over(program, arguments):
    """The desk keeps this process id, so a signal or a kill meets the desk and not a wrapper."""
    if WINDOWS:
        return subprocess.call([program + ".exe"] + arguments)
    sys.stdout.flush()
    os.execv(program, [program] + arguments)


# --- the verbs ------------------------------------------------------------------------------------------------------


def check(arguments):
    return 1 if failed_checks() else 0


def e2e(arguments):
    return pytest_ring("e2e", arguments or E2E)[0]


# Besides the storms: what has a full size of its own.
CHAOS = ["tests/chaos", "tests/worker/schedules/test_cron.py"]
CHAOS += ["tests/worker/joblogs/test_%s.py" % name for name in ("simulation", "replay", "anchor_bugs")]


def chaos(arguments):
    """Prints its seed and a table of results; the same seed asks for the same jobs and strikes again."""
    if arguments[:1] == ["--seed"] and len(arguments) > 1:
        os.environ["CHAOS_SEED"], arguments = arguments[1], arguments[2:]
    os.environ["CHAOS_SIZE"] = "full"
    return pytest_ring("chaos", arguments or CHAOS)[0]


def test(arguments):
    if arguments:
        browser = any(re.match(r"(\./)?e2e(/|\\|$)", argument) for argument in arguments)
        return pytest_ring("e2e" if browser else "tests", arguments)[0]
    started = time.time()
    failures = failed_checks()
    rings = [pytest_ring("tests", TESTS), pytest_ring("e2e", E2E)]
    return close([code for code, _ in rings], [counts for _, counts in rings], failures, time.time() - started)


def failed_checks():
    """Names of the checks that found something; all of them run."""
    tool = lambda name: os.path.join(SCRIPTS, name + (".exe" if WINDOWS else ""))  # noqa: E731
    checks = [
        ("ruff", [tool("ruff"), "check", "."]),
        ("format", [tool("ruff"), "format", "--check", "."]),
        ("mypy", [tool("mypy")]),
        ("imports", [tool("lint-imports"), "--no-logo"]),
    ]
    failures = []
    for name, command in checks:
        say("check: %s" % name)
        if subprocess.call(command, cwd=ROOT) != 0:
            failures.append(name)
    return failures


def pytest_ring(name, arguments):
    """Exit code and counts of one pytest run. The browser ring is a run of its own: its event loop does not share."""
    report = os.path.join(TOOLS, "report-%s-%d.xml" % (name, os.getpid()))
    make_directory(TOOLS)
    say("pytest: %s" % " ".join(arguments))
    code = subprocess.call([PYTHON, "-m", "pytest", "--junitxml", report] + arguments, cwd=ROOT)
    return code, read_counts(report)


def read_counts(report):
    if not os.path.exists(report):
        return {"passed": 0, "failed": 0, "errors": 1, "skipped": 0}
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    totals = [{key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")} for suite in suites]
    os.remove(report)
    add = lambda key: sum(total[key] for total in totals)  # noqa: E731
    failed, errors, skipped = add("failures"), add("errors"), add("skipped")
    return {"passed": add("tests") - failed - errors - skipped, "failed": failed, "errors": errors, "skipped": skipped}


def close(codes, counts, failed, seconds):
    """One line in pytest's own words for both rings and the checks, and one exit code."""
    total = {key: sum(count[key] for count in counts) for key in counts[0]}
    total["errors"] += len(failed)
    if failed:
        say("checks that failed: %s" % ", ".join(failed))
    words = ["%d %s" % (total[key], key) for key in ("failed", "passed", "skipped", "errors") if total[key] or key == "passed"]
    sys.stdout.write("===== %s in %.2fs =====\n" % (", ".join(words), seconds))
    sys.stdout.flush()
    return 1 if failed or any(codes) else 0


# --- the environment --------------------------------------------------------------------------------------------


def ensure_environment(lock):
    """Makes `.venv` hold what `lock` pins. Writes nothing when the stamp says it does: read-only and offline runs work."""
    if built(lock):
        return
    with only_one_at_a_time():
        if not built(lock):
            build(lock)


def built(lock):
    """A development environment serves for running too. A moved checkout, a new Python or an edited lock does not."""
    if not runs(PYTHON):
        return False
    stamped = read(os.path.join(VENV, ".m-stamp")).split("\n")
    return fingerprint(DEV) in stamped or (lock == RUNTIME and fingerprint(RUNTIME) in stamped)


def fingerprint(lock):
    digest = hashlib.sha256(ROOT.encode("utf-8", "surrogateescape"))
    for name in (lock, "pyproject.toml"):
        digest.update(read(os.path.join(ROOT, name)).encode("utf-8"))
    return "%s %s" % (lock, digest.hexdigest())


def build(lock):
    started = time.time()
    say("preparing .venv from %s (once)" % lock)
    environment = install_environment()
    uv = find_uv(environment)
    if not runs(PYTHON) or not belongs_here():
        make_venv(uv, environment)
    install = [uv, "pip", "install", "--quiet", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install", "--quiet"]
    # Tests start hundreds of processes: they share bytecode made once. A first `./m dev` does not wait for it.
    compiled = ["--compile-bytecode"] if uv and lock == DEV else []
    run(install + compiled + ["--require-hashes", "-r", os.path.join(ROOT, lock)], environment)
    run(install + ["--no-deps", "--no-build-isolation", "-e", ROOT], environment)
    with open(os.path.join(VENV, ".m-stamp"), "w") as stamp:
        stamp.write(fingerprint(lock))
    say("ready after %.1f s" % (time.time() - started))


def belongs_here():
    """Scripts in a virtual environment carry its path, so one that was moved with its checkout is made anew."""
    script = read(os.path.join(SCRIPTS, "activate"))
    return VENV in script or WINDOWS


def make_venv(uv, environment):
    python = find_python()
    shutil.rmtree(VENV, ignore_errors=True)
    if uv:
        run([uv, "venv", "--quiet", "--python", python or ">=3.11", VENV], environment)
    elif python:
        run([python, "-m", "venv", VENV], environment)
    else:
        stop("M Desk needs Python 3.11 or newer; `%s` is %s. Install one and run this again." % (sys.executable, sys.version.split()[0]))


def find_python():
    """The path of a Python that the pinned packages have wheels for, this one first; None when there is none."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    names = ["python3.%d" % minor for minor in range(NEWEST[1], OLDEST[1] - 1, -1)] + ["python3", "python"]
    folders = os.environ.get("PATH", "").split(os.pathsep) + ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"]
    shims = os.path.expanduser(os.path.join("~", ".pyenv", "versions"))
    if os.path.isdir(shims):
        folders += [os.path.join(shims, version, "bin") for version in sorted(os.listdir(shims), reverse=True)]
    for name in names:
        for folder in folders:
            found = os.path.join(folder, name + (".exe" if WINDOWS else ""))
            if os.path.isfile(found) and OLDEST <= version_of(found) <= NEWEST:
                return found
    return sys.executable if sys.version_info[:2] >= OLDEST else None


def version_of(python):
    try:
        out = subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:2])"], stderr=subprocess.DEVNULL, timeout=20)
        major, minor = out.decode().split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0


def install_environment():
    environment = dict(os.environ, UV_SYSTEM_CERTS="true", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_REQUIRE_VIRTUALENV="0", PIP_USER="0")
    environment["PIP_ROOT_USER_ACTION"] = "ignore"
    environment.pop("VIRTUAL_ENV", None)
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONHOME", None)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if "UV_CACHE_DIR" not in environment and not can_make(os.path.join(cache, "uv")):
        environment["UV_CACHE_DIR"] = os.path.join(TOOLS, "uv-cache")
    return environment


def can_make(path):
    try:
        os.makedirs(path, exist_ok=True)
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK)


def find_uv(environment):
    """uv from PATH, else a pinned copy of our own in `.tools`; None where uv does not run, and then pip does the work."""
    for candidate in (shutil.which("uv"), own_uv()):
        if candidate and runs(candidate):
            return candidate
    installer = find_pip(environment)
    if installer:
        target = ["--no-cache-dir", "--no-deps", "--require-hashes", "--upgrade", "--target", os.path.join(TOOLS, "uv")]
        subprocess.call(installer + ["install", "--quiet"] + target + ["-r", os.path.join(ROOT, "requirements-uv.lock")], env=environment)
    return own_uv() if runs(own_uv()) else None


def own_uv():
    return os.path.join(TOOLS, "uv", "bin", "uv.exe" if WINDOWS else "uv")


def find_pip(environment):
    """pip of the newest fitting Python; where a distribution ships none, the one of a throw-away virtual environment."""
    python = find_python() or sys.executable
    if succeeds([python, "-m", "pip", "--version"]):
        return [python, "-m", "pip"]
    folder = os.path.join(TOOLS, "pip")
    if not succeeds([python, "-m", "venv", "--clear", folder]) and shutil.which("apt-get") and is_root():
        say("installing python3-venv")
        quiet = dict(environment, DEBIAN_FRONTEND="noninteractive")
        subprocess.call(["apt-get", "update", "-qq"], env=quiet, stdout=subprocess.DEVNULL)
        subprocess.call(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "python3-venv"], env=quiet, stdout=subprocess.DEVNULL)
        succeeds([python, "-m", "venv", "--clear", folder])
    pip = [os.path.join(folder, "Scripts" if WINDOWS else "bin", "python"), "-m", "pip"]
    if not succeeds(pip + ["--version"]):
        stop("this Python has neither pip nor venv; install one (Debian, Ubuntu: apt install python3-venv) or uv, and run this again.")
    return pip


def is_root():
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextlib.contextmanager
def only_one_at_a_time():
    """Two commands in a fresh checkout build one environment. The system frees the lock when its holder dies."""
    make_directory(TOOLS)
    with open(os.path.join(TOOLS, "lock"), "w") as lock:
        if WINDOWS:
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def runs(program):
    return os.path.isfile(program) and succeeds([program, "--version"])


def succeeds(command):
    try:
        return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120) == 0
    except (OSError, subprocess.SubprocessError):
        return False


def run(command, environment):
    code = subprocess.call(command, env=environment, cwd=ROOT)
    if code:
        stop("`%s` ended with %d. A first run needs the network; what it printed stands above." % (" ".join(command[:4]), code))


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def make_directory(path):
    try:
        os.makedirs(path)
    except FileExistsError:
        pass
    except OSError as error:
        stop("cannot write to %s: %s" % (ROOT, error.strerror))


def say(text):
    sys.stderr.write("m: %s\n" % text)
    sys.stderr.flush()


def stop(text):
    say(text)
    sys.exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
