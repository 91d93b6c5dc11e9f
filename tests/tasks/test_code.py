"""Digests of code: every module that runs counts, and only what runs."""

import importlib
import subprocess
import sys
import textwrap

import pytest

from robust.method import Method
from tasks import code
from tasks.code import UnknownModule, closure, code_digest, modules_behind

PACKAGE = {
    "__init__.py": "",
    "ground.py": "LIMIT = 1\n",
    "unused.py": "X = 1\n",
    "late.py": "def f():\n    return 2\n",
    "typing_only.py": "class T: pass\n",
    "attacks/__init__.py": "from robust.registry import lazy_exports\n\n__getattr__ = lazy_exports(__name__)\n",
    "attacks/pgd.py": "from ..ground import LIMIT\n\n\nclass PGD:\n    steps = LIMIT\n",
    "attacks/fgsm.py": "class FGSM:\n    pass\n",
    "objectives/__init__.py": "",
    "objectives/pgd_at.py": '''
        """Adversarial training."""
        from typing import TYPE_CHECKING
        from plug.attacks import PGD
        if TYPE_CHECKING:
            from plug.typing_only import T


        class PGDAT:
            """Doc."""

            def loss(self):
                from plug.late import f
                return f() + PGD.steps
        ''',
}


@pytest.fixture
def plug(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        path = tmp_path / "plug" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    code._folders.cache_clear()  # the same name stands for another folder in each test
    code._known.clear()
    yield tmp_path / "plug"
    code._folders.cache_clear()
    code._known.clear()


BEHIND = ("plug.attacks.pgd", "plug.ground", "plug.late", "plug.objectives.pgd_at")


def test_closure_follows_relative_lazy_and_late_imports(plug):
    assert closure(["plug.objectives.pgd_at"]) == BEHIND


def test_nothing_is_imported(plug):
    closure(["plug.objectives.pgd_at"])
    assert not [name for name in sys.modules if name.partition(".")[0] == "plug"]


@pytest.mark.parametrize("module", BEHIND)
def test_every_module_in_the_closure_changes_the_digest(plug, module):
    before, modules = code_digest(["plug.objectives.pgd_at"])
    path = code.location(module)
    path.write_text(path.read_text() + "\nADDED = 1\n")
    after, changed = code_digest(["plug.objectives.pgd_at"])
    assert after != before
    assert [name for name in modules if modules[name] != changed[name]] == [module]


@pytest.mark.parametrize("file", ["unused.py", "attacks/fgsm.py", "typing_only.py"])
def test_other_modules_do_not(plug, file):
    before, _ = code_digest(["plug.objectives.pgd_at"])
    (plug / file).write_text("CHANGED = 1\n")
    assert code_digest(["plug.objectives.pgd_at"])[0] == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Adversarial training."""', '"""Another text."""\n# and a comment'),
        ('    """Doc."""\n', '    """Longer.\n\n    Documentation."""\n'),
        ("return f() + PGD.steps", "return (\n            f()  # a comment\n            + PGD.steps\n        )"),
        ('"""Adversarial training."""\n', ""),
    ],
)
def test_text_for_people_and_layout_do_not(plug, old, new):
    path = plug / "objectives" / "pgd_at.py"
    before, _ = code_digest(["plug.objectives.pgd_at"])
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert code_digest(["plug.objectives.pgd_at"])[0] == before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("X = 1", "X = 1.0"),
        ("X = 'a'", "X = b'a'"),
        ("def f():\n    return None", "def f():\n    return"),
        ("X = [None, 1]", "X = [1]"),
        ("X = a - b", "X = b - a"),
        ("X = {**a}", "X = {a: a}"),
    ],
)
def test_what_means_something_else_has_another_digest(plug, one, other):
    (plug / "ground.py").write_text(one)
    before, _ = code_digest(["plug.ground"])
    (plug / "ground.py").write_text(other)
    assert code_digest(["plug.ground"])[0] != before


def test_a_field_description_is_text_for_people(plug):
    (plug / "ground.py").write_text('x = Field(default=1, description="one")\n')
    before, _ = code_digest(["plug.ground"])
    (plug / "ground.py").write_text('x = Field(default=1, description="another")\n')
    assert code_digest(["plug.ground"])[0] == before


def test_a_lazy_package_taken_whole_counts_all_its_files(plug):
    (plug / "ground.py").write_text("from plug import attacks\n")
    assert {"plug.attacks.pgd", "plug.attacks.fgsm"} <= set(closure(["plug.ground"]))


def test_unknown_roots_are_named():
    with pytest.raises(UnknownModule, match="no_such_module"):
        closure(["no_such_module"])


def test_the_library_itself():
    found = closure(["robust.judging"])
    assert {"robust.judging", "robust.ledger", "robust.threat", "robust.randomness"} <= set(found)
    assert not [name for name in found if name.split(".")[0] not in ("robust",)]


def test_no_method_of_the_library_drags_in_the_registry_or_its_neighbours():
    from robust.registry import entries

    for entry in entries("model"):
        found = set(closure([entry.module]))
        others = {other.module for other in entries() if other.kind != "model"}
        assert not found & (others | {"robust.registry"}), entry.name


def test_modules_behind_a_method_include_the_methods_inside_it():
    class Inner(Method):
        name = "inner"

    class Outer(Method):
        name = "outer"
        inner: Inner = Inner()
        more: tuple[Inner, ...] = (Inner(),)

    Inner.__module__, Outer.__module__ = "plug.inner", "plug.outer"
    assert modules_behind(Outer()) == ("plug.inner", "plug.outer")


def test_digests_do_not_depend_on_the_process(repository):
    program = "from tasks.code import code_digest; print(code_digest(['robust.judging'])[0])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True, capture_output=True, text=True, cwd=repository, env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert outputs == {code_digest(["robust.judging"])[0] + "\n"}
