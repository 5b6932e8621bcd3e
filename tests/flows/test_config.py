"""Settings come from flags and TOML; whatever cannot be used is named with what could."""

from pathlib import Path

import pytest

from rollmill.flows.config import ConfigError, GenerateConfig, SftConfig, load_config


def toml(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return file


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'out = "a"\nn = 3\npolicy = ["null"]\n')
    config = load_config(GenerateConfig, {"n": 5, "group": None, "policy": []}, file)
    assert (config.n, config.group, config.policy, config.out) == (5, 1, ("null",), Path("a"))


def test_unknown_key_names_the_choices(tmp_path: Path) -> None:
    file = toml(tmp_path, 'out = "a"\npolicies = ["gold"]\n')
    with pytest.raises(ConfigError, match=r"'policies'.*choose from: out, tasks, n, group, policy"):
        load_config(GenerateConfig, {}, file)


@pytest.mark.parametrize("text", ["n = ", "\xff\xfe"])
def test_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"expected TOML in .*settings.toml"):
        load_config(GenerateConfig, {}, file)


def test_speed_and_place_do_not_change_what_a_run_is() -> None:
    config = GenerateConfig(out=Path("a"), concurrency=1, retries=0)
    same = GenerateConfig(out=Path("b"), concurrency=9, retries=5)
    assert config.run_id == same.run_id
    assert config.run_id != GenerateConfig(out=Path("a"), seed=1).run_id
    assert config.run_id != GenerateConfig(out=Path("a"), gate="full").run_id


def test_an_unknown_gate_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"gate: .*'quick' or 'full', got 'slow'"):
        load_config(GenerateConfig, {"out": "a", "gate": "slow"}, None)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"steps": 5, "warmup_steps": 6}, "warmup_steps must be at most steps"),
        ({"batch_tokens": 512}, "max_sample_tokens must be at most batch_tokens"),
    ],
)
def test_values_that_do_not_go_together_are_refused(flags: dict[str, int], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(SftConfig, {"data": ["a"], "out": "b", **flags}, None)


def test_ranks_and_a_gpu_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="device must be cpu on several ranks, got cuda"):
        load_config(SftConfig, {"data": ["a"], "out": "b", "ranks": 2, "device": "cuda"}, None)
