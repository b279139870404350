import subprocess
import sys
from pathlib import Path

TESTS = """
import implicit
from implicit.als import AlternatingLeastSquares

def test_ours():
    for model in (AlternatingLeastSquares(3, 0.1, random_state=4), implicit.nearest_neighbours.CosineRecommender(K=3)):
        assert type(model).__module__.startswith("recvae.")

def test_explain():
    assert False, "of no matter"

def test_surprise():
    raise ValueError("a | b")
"""


def test_every_failure_is_listed_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "als_test.py").write_text(TESTS)
    command = [sys.executable, "-m", "benchmarks.implicit_tests", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "1 passed, 2 failed, 0 skipped" in printed
    assert "| als_test.py::test_explain | explain returns (ids, contributions)" in printed
    assert "| als_test.py::test_surprise | **not known** | ValueError: a / b |" in printed


def test_a_folder_without_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.implicit_tests", str(tmp_path)]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "expected the tests of implicit" in failed.stderr
