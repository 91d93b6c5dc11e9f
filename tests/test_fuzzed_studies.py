"""Studies that were broken at random: each is a study or one clear error, and reading it touches nothing.

300 in every test run, 10,000 in `make soak`. A case is made from its number alone, so a failure names what to replay.
"""

import copy
import random
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from robust.study_file import load
from robust.yamltree import StudyError

STUDIES = sorted((Path(__file__).parents[1] / "studies").rglob("*.yaml"))
HOSTILE = [
    None, True, -1, 0, 1, 7, 2**31, 2**53, 2**63, 10**30, -0.0, 0.5, 1e308, float("nan"), float("inf"), "", " ", ".",
    "..", "~", "null", "../../etc/passwd", "/etc/passwd", "C:\\windows", "a/b", "a b", "A", "é", "\u202e", "💥", "\x00",
    "\x1b[2J", "x" * 5000, "8/255", "8/0", "1/" + "9" * 60, "9" * 400, "1e999", "0x10", "<script>alert(1)</script>",
    "\\input{/etc/passwd}", "{{ 7*7 }}", "${HOME}", "$(touch pwned)", "; touch pwned", "file:///etc/passwd", [], {},
    [[[[]]]], [None], {"": ""}, {"name": None}, {"name": "pgd"}, {"name": "pgd", "eps": "1/10"}, {"name": ["pgd"]},
    "pgd", "clean", "mlp", "digits", "jem", "folder", {"name": "folder", "path": "/"}, {"on": {"networks": ["*"]}},
    {"__class__": "x"}, {"name": "mlp", "hidden": [10**9]}, list(range(50)), {str(i): i for i in range(50)},
]  # fmt: skip
TEXTS = [
    "&a ", "*a", "<<: *a", "!!python/object/apply:os.system [x]", "!!binary x", "? ", "- ", "{", "[", "}", "]", ":",
    "\t", "'", '"', "|", ">", "%", "@", "---\n", "...\n", "#", "\ufeff", "\u2028", "\x85",
]  # fmt: skip
WATCHED = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.system",
           "os.posix_spawn", "os.fork", "os.exec", "subprocess.Popen", "socket.connect", "shutil.rmtree"}  # fmt: skip
touched: list[str] = []
watching = False


def watch(event: str, arguments: tuple) -> None:
    if not watching:
        return
    if event in WATCHED:
        touched.append(f"{event} {arguments[0]!r}")
    elif event == "open" and arguments[2] & 0b11 and ".pyc" not in str(arguments[0]):  # write or read-write
        touched.append(f"open {arguments[0]!r}")


@contextmanager
def watched():
    """Within it, everything that leaves a trace outside this process is noted; Python's own bytecode is not."""
    global watching
    touched.clear()
    watching = True
    try:
        yield
    finally:
        watching = False


sys.addaudithook(watch)  # cannot be removed again; silent unless `watching`


def places(tree, path=()):
    """The path of every value in a tree."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def hostile(chance: random.Random):
    """A hostile value; a copy, or the next mutation would change it for all cases that follow."""
    return copy.deepcopy(chance.choice(HOSTILE))


def mutated_tree(tree, chance: random.Random):
    """One value of the tree replaced, removed, renamed, wrapped or exchanged for another of its values."""
    path = chance.choice(list(places(tree)))
    if not path:
        return hostile(chance)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    value, how = parent[path[-1]], chance.randrange(8)
    if how == 0:
        del parent[path[-1]]
    elif how == 1 and isinstance(parent, dict):
        parent[chance.choice([str(path[-1]) + "s", "nme", "", "<b>", "x" * 300])] = parent.pop(path[-1])
    elif how == 2:
        parent[path[-1]] = [value, value]
    elif how == 3:
        other = tree
        for key in chance.choice(list(places(tree))):
            other = other[key]
        parent[path[-1]] = yaml.safe_load(yaml.safe_dump(other))  # a copy: no tree may hold itself
    else:
        parent[path[-1]] = hostile(chance)
    return tree


def mutated_text(text: str, chance: random.Random) -> str:
    """A piece of the text cut out, doubled, exchanged or broken by what means something in YAML."""
    start = chance.randrange(len(text) + 1)
    stop = min(len(text), start + chance.choice([0, 1, 2, 10, 200]))
    piece = chance.choice(["", text[start:stop] * 2, chance.choice(TEXTS), chr(chance.choice([0, 9, 13, 127, 0xD7FF]))])
    return text[:start] + piece + text[stop:]


def case(number: int) -> bytes:
    """Study number so-and-so."""
    chance = random.Random(number)
    text = chance.choice(STUDIES).read_text(encoding="utf-8")
    if chance.random() < 0.6:
        tree = yaml.safe_load(text)
        for _ in range(chance.randint(1, 3)):
            tree = mutated_tree(tree, chance) if isinstance(tree, (dict, list)) else tree
        text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    for _ in range(chance.choice([0, 0, 1, 2, 5])):
        text = mutated_text(text, chance)
    content = text.encode("utf-8", errors="surrogatepass")
    if chance.random() < 0.05:
        content = content[: chance.randrange(len(content) + 1)] + bytes([chance.randrange(128, 256)])
    return content


def is_clear(message: str, path: Path) -> bool:
    """One line with file, line, field and what is wrong, of a length that a person reads."""
    return re.fullmatch(rf"{re.escape(str(path))}:\d+: [^\n]*: [^\n]+", message) is not None and len(message) < 3000


def verdict(number: int, folder: Path) -> str:
    """`study` or `refused`; anything else is a failed assertion that names the case."""
    path = folder / "study.yaml"
    path.write_bytes(case(number))
    started = time.process_time()
    with watched():
        try:
            study = load(path, random.Random(number).choice(["smoke", "cpu", "full"]))
            study.settings()  # what a manifest records
            outcome, messages = "study", []
        except StudyError as error:
            outcome, messages = "refused", error.messages
        except Exception as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {str(error)[:500]}") from error
    for message in messages:
        assert is_clear(message, path), f"case {number}: {message!r}"
    assert not touched, f"case {number}: reading a study did {touched[:3]}"
    assert time.process_time() - started < 10, f"case {number} took too long"
    return outcome


def play(numbers: range, folder: Path) -> None:
    outcomes = [verdict(number, folder) for number in numbers]
    assert outcomes.count("refused") > len(outcomes) / 4, "the mutations must break something"
    assert outcomes.count("study") > len(outcomes) / 50, "and not everything"
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


def test_300_fuzzed_studies(tmp_path):
    play(range(300), tmp_path)


@pytest.mark.soak
def test_10_000_fuzzed_studies(tmp_path):
    play(range(10_000), tmp_path)


def test_the_watch_sees_what_a_study_must_not_do(tmp_path):
    with watched():
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_text("x")
    assert {event.partition(" ")[0] for event in touched} == {"os.mkdir", "open"}
