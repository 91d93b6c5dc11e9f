"""The data folder: how tests that need one are left out, and how one is made by links."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def test_tests_without_their_data_are_deselected_and_counted(tmp_path):
    tests = REPOSITORY / "tests" / "robust" / "datasets" / "test_full_datasets.py"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "human or letters", str(tests)],
        capture_output=True, text=True, cwd=REPOSITORY, env={**os.environ, "ROBUST_DATA": str(tmp_path)},
    )  # fmt: skip
    assert (
        "data: 3 tests deselected, for want of cifar10, cifar10h, cifar10n, emnist-letters, mnist under"
        in result.stdout
    ), result.stdout
    assert f"ROBUST_DATA={tmp_path}" in result.stdout
    assert result.returncode == 5  # nothing left to run
    assert "skipped" not in result.stdout


def test_a_data_folder_is_made_of_links(tmp_path):
    shared, made = tmp_path / "shared", tmp_path / "made"
    (shared / "MNIST" / "raw").mkdir(parents=True)
    (shared / "unpack_cifar10.py").write_text("import sys; open(sys.argv[1] + '/cifar', 'w').close()")
    with zipfile.ZipFile(shared / "tiny-imagenet-10.zip", "w") as archive:
        archive.writestr("tiny-imagenet-10/wnids.txt", "n1")
    command = [sys.executable, str(REPOSITORY / ".ci" / "link_data.py"), str(shared), str(made)]
    for _ in range(2):
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout.splitlines()[-1] == str(made)
        assert {path.name for path in made.iterdir()} == {"MNIST", "cifar", "tiny-imagenet-10"}
    assert (made / "MNIST").resolve() == shared / "MNIST"
    assert (made / "tiny-imagenet-10" / "wnids.txt").read_text() == "n1"
    assert "Fashion" in result.stdout
