"""Which deployment a command means, and options that all verbs share."""

from __future__ import annotations

import json

import pytest


def test_no_deployment_says_what_to_run(invoke):
    result = invoke("inspect")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: deployment in engines: got none, expected one. Run: parnet-deploy fuse model.pt.\n"
    )


def test_the_only_deployment_is_taken_and_named(built, invoke):
    result = invoke("inspect", "--json")
    assert result.stderr == "using digits: the only deployment in engines\n"
    assert json.loads(result.stdout)["name"] == "digits"


def test_quiet_does_not_say_which(built, invoke):
    assert invoke("inspect", "-q").stderr == ""


def test_ambiguous_names_are_listed(place_deployment, invoke):
    place_deployment("built", "a")
    place_deployment("built", "b")
    result = invoke("inspect")
    assert result.exit_code == 1
    assert "got 2 (a, b;" in result.stderr
    assert "parnet-deploy inspect a." in result.stderr


def test_an_unknown_name_is_answered_with_a_close_one(built, invoke):
    result = invoke("inspect", "digts")
    assert result.exit_code == 1
    assert "Did you mean digits?" in result.stderr


@pytest.mark.parametrize("how", ["name", "path", "option", "short", "root"])
def test_ways_to_name_a_deployment(built, workplace, invoke, how):
    arguments = {
        "name": ["digits"],
        "path": [str(built)],
        "option": ["--deployment", "digits"],
        "short": ["-d", "digits"],
        "root": ["digits", "--root", str(workplace / "engines")],
    }[how]
    result = invoke("inspect", *arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("digits  ")
    assert result.stderr == ""


def test_naming_it_twice_is_usage(built, invoke):
    result = invoke("inspect", "digits", "-d", "digits")
    assert result.exit_code == 2
    assert "Name the deployment once" in result.stderr


@pytest.mark.parametrize("text", ["a", "0,,1", "", "-1", "0.5"])
def test_gpus_that_are_no_numbers_are_usage(built, invoke, text):
    result = invoke("build", "--gpus", text)
    assert result.exit_code == 2
    assert "expected numbers such as 0,1,2" in result.stderr


@pytest.mark.parametrize("text", ["0.5", "0.5,0.5,0.5,0.5", "a,b,c"])
def test_means_that_are_not_three_numbers_are_usage(invoke, text):
    result = invoke("fuse", "model.pt", "--mean", text)
    assert result.exit_code == 2
    assert "expected numbers such as 0.5,0.5,0.5" in result.stderr


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize(
    "option",
    [
        *("--drain-seconds", "--watch", "--max-delay-ms", "--deadline-ms", "--target-ongoing"),
        *("--engine-timeout-ms", "--prove-every"),
    ],
)
def test_numbers_of_serve_that_are_not_finite_are_usage(built, invoke, option, text):
    result = invoke("serve", "--ray", "--write-config", "ray.yaml", "--no-grpc", f"{option}={text}")
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr
