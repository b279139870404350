"""Options of benchmarks: what they do not know is one line, not a traceback."""

import argparse
from pathlib import Path

import pytest

from benchmarks.record import add_parts, parse_count, parse_some
from benchmarks.whole_users import make_parser


def test_some_of_the_known_names() -> None:
    parse = parse_some(["ease", "als", "multvae (paper)"])
    assert parse("als, multvae (paper),") == ["als", "multvae (paper)"]
    with pytest.raises(argparse.ArgumentTypeError, match="has bias, esae; expected some of ease, als, multvae"):
        parse("esae,als,bias")


def test_parts_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_parts(parser, {"kill": 1, "reload": 2})
    assert parser.parse_args([]).only == ["kill", "reload"]
    assert parser.parse_args(["--only", "reload"]).only == ["reload"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--only", "kil"])
    assert "argument --only: has kil; expected some of kill, reload" in capsys.readouterr().err


def test_a_number_of_things_is_at_least_one(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=parse_count)
    assert parser.parse_args(["--seeds", "3"]).seeds == 3
    for given in ("0", "-1", "1.5", "three"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--seeds", given])
        assert f"argument --seeds: is '{given}'; expected a whole number of at least 1" in capsys.readouterr().err


def test_data_sets_with_their_directories(capsys: pytest.CaptureFixture[str]) -> None:
    parser = make_parser("about")
    assert parser.parse_args(["a=data/a=b", "--models", "m"]).data == [("a", Path("data/a=b"))]
    with pytest.raises(SystemExit):
        parser.parse_args(["a", "--models", "m"])
    assert "'a' is not NAME=PREPARED_DIRECTORY" in capsys.readouterr().err
