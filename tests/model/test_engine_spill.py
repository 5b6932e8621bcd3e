"""Pages that lost their place: kept in memory and files, brought back whole or computed again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rollmill.kernels.decode_step import library_problem
from rollmill.model.config import ModelConfig
from rollmill.model.engine import Engine, GenRequest, SpillSettings
from rollmill.model.engine.spill import Costs
from rollmill.model.model import Model
from rollmill.model.mtp import mtp_from_trunk

MakeConfig = Callable[..., ModelConfig]
CACHE_TOKENS = 48


@pytest.fixture(scope="module")
def model(make_config: MakeConfig) -> Model:
    torch.manual_seed(0)
    return Model(make_config())


def ask(seed: int) -> GenRequest:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 97, (40,), generator=rng).tolist()
    return GenRequest(prompt_ids=tuple(ids), max_tokens=6, temperature=0)


def small(model: Model, spill: SpillSettings | None, **settings: object) -> Engine:
    """An engine whose cache holds one prompt."""
    return Engine(model, slots=1, cache_tokens=CACHE_TOKENS, spill=spill, **settings)  # type: ignore[arg-type]


def page_bytes(engine: Engine) -> int:
    return engine._scheduler.pages.page_bytes


RAM = SpillSettings(ram_bytes=10**7)


def on_disk(folder: Path, disk_bytes: int = 10**7) -> SpillSettings:
    return SpillSettings(folder=folder, disk_bytes=disk_bytes)


@pytest.mark.parametrize("level", ["ram", "disk"])
def test_an_evicted_prompt_comes_back_with_the_same_bits(
    level: str, model: Model, tmp_path: Path
) -> None:
    spill = RAM if level == "ram" else on_disk(tmp_path)
    engine = small(model, spill, record_routes=True, deterministic=True)
    first, _, again = (engine.generate([ask(seed)])[0] for seed in (1, 2, 1))
    assert again.cached_tokens == 32  # the two full pages
    assert engine.stats.recalled_pages == 2
    assert again.tokens == first.tokens
    without = small(model, None)
    assert [without.generate([ask(seed)])[0].cached_tokens for seed in (1, 2, 1)] == [0, 0, 0]


def test_files_serve_a_later_engine_of_the_same_weights_and_no_other(
    model: Model, make_config: MakeConfig, tmp_path: Path
) -> None:
    first = small(model, on_disk(tmp_path))
    expected, _ = (first.generate([ask(seed)])[0].token_ids for seed in (1, 2))
    second = small(model, on_disk(tmp_path))
    (result,) = second.generate([ask(1)])
    assert (result.cached_tokens, result.token_ids) == (32, expected)
    other = small(Model(make_config()), on_disk(tmp_path))
    assert other.generate([ask(1)])[0].cached_tokens == 0
    ahead = small(model, on_disk(tmp_path), mtp=mtp_from_trunk(model, 1))  # larger pages
    assert ahead.generate([ask(1)])[0].cached_tokens == 0


@pytest.mark.skipif(library_problem() is not None, reason="there is one decoder here")
@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_a_deterministic_engine_takes_pages_only_from_its_like(
    native: bool, model: Model, tmp_path: Path
) -> None:
    for settings in ({}, {"deterministic": True, "native": not native}):
        first = small(model, on_disk(tmp_path), **settings)
        for seed in (1, 2):
            first.generate([ask(seed)])
    for expected in (0, 32):
        engine = small(model, on_disk(tmp_path), deterministic=True, native=native)
        assert engine.generate([ask(1)])[0].cached_tokens == expected
        engine.generate([ask(2)])  # the first one's pages go down


def test_pages_of_another_layout_stay_where_they_are(model: Model, tmp_path: Path) -> None:
    first = small(model, on_disk(tmp_path))
    for seed in (1, 2):
        first.generate([ask(seed)])
    files = set(tmp_path.iterdir())
    with_routes = small(model, on_disk(tmp_path), record_routes=True)
    assert with_routes.generate([ask(1)])[0].cached_tokens == 0
    assert with_routes.stats.damaged_pages == 0
    assert files <= set(tmp_path.iterdir())
    assert small(model, on_disk(tmp_path)).generate([ask(1)])[0].cached_tokens == 32


def test_the_same_weights_under_another_config_find_nothing(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    models = [Model(make_config(rope_theta=theta)) for theta in (1e4, 1e6)]
    models[1].load_state_dict(models[0].state_dict())
    for each in models:
        engine = small(each, on_disk(tmp_path))
        assert [engine.generate([ask(seed)])[0].cached_tokens for seed in (1, 2)] == [0, 0]


def test_new_weights_find_nothing_of_the_old_until_those_return(model: Model) -> None:
    torch.manual_seed(7)
    engine = small(model, RAM)
    old = {name: each.clone() for name, each in model.state_dict().items()}
    changed = old | {"model.norm.weight": old["model.norm.weight"] * 2}
    for seed in (1, 2):
        engine.generate([ask(seed)])
    for weights, version, cached in ((changed, 1, 0), (old, 2, 32)):
        engine.swap_weights(weights, version)
        assert engine.generate([ask(1)])[0].cached_tokens == cached


@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
def test_a_damaged_file_is_noticed_and_its_page_computed_again(
    damage: str, model: Model, tmp_path: Path
) -> None:
    engine = small(model, on_disk(tmp_path))
    first, _ = (engine.generate([ask(seed)])[0] for seed in (1, 2))
    for file in tmp_path.glob("*.kv"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(data if damage == "flipped" else data[:-1])
    (again,) = engine.generate([ask(1)])
    assert (again.cached_tokens, again.token_ids) == (0, first.token_ids)
    assert engine.stats.damaged_pages == 1
    assert engine.stats.recalled_pages == 0


def test_both_levels_keep_to_their_bounds(model: Model, tmp_path: Path) -> None:
    size = page_bytes(small(model, None))
    spill = SpillSettings(ram_bytes=3 * size, folder=tmp_path, disk_bytes=5 * (size + 4))
    engine = small(model, spill)
    for seed in range(9):
        engine.generate([ask(seed)])
        files = [file.stat().st_size for file in tmp_path.iterdir()]
        assert sum(files) <= 5 * (size + 4)
    assert len(files) == 5
    assert engine.stats.kept_pages >= 16
    (tmp_path / "ab.partial").write_bytes(b"torn")
    later = small(model, SpillSettings(folder=tmp_path, disk_bytes=2 * (size + 4)))
    assert len(list(tmp_path.iterdir())) == 2  # the bound shrank; the torn write is gone
    assert later.stats.kept_pages == 0


def test_a_page_is_read_only_where_that_is_faster(model: Model, tmp_path: Path) -> None:
    costs = Costs()
    assert costs.reading_pays(16, 1000)  # nobody knows yet
    costs.computed(tokens=100, seconds=1.0)  # 10 ms a token
    costs.read(size=1000, seconds=0.1)  # 0.1 ms a byte
    assert costs.reading_pays(16, 1599)
    assert not costs.reading_pays(16, 1601)
    assert costs.reading_pays(16, 0)  # main memory
    engine = small(model, on_disk(tmp_path))
    for seed in (1, 2):
        engine.generate([ask(seed)])
    assert engine._lower is not None
    for _ in range(2):
        engine._lower.store.costs.read(size=1, seconds=1e6)
    assert engine.generate([ask(1)])[0].cached_tokens == 0


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder and disk_bytes together"):
        SpillSettings(folder=tmp_path)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        SpillSettings(ram_bytes=-1)
