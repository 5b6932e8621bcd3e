"""Image names follow content, builders take turns, and failures say what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

from rollmill.workspaces import EngineUnavailable, UnknownImage, images, open_provider
from rollmill.workspaces.doctor import findings
from rollmill.workspaces.engine import connect, ensure_engine


def test_a_tag_changes_with_its_content_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    before = images.tag_of("python")
    assert before == images.tag_of("python")
    assert before.startswith("rollmill/python:")
    spec = images.SPECS["python"]
    changed = images.ImageSpec(packages=(*spec.packages, "jq"), requirements=spec.requirements)
    monkeypatch.setitem(images.SPECS, "python", changed)
    assert images.tag_of("python") != before


def test_every_requirement_is_pinned() -> None:
    for name, spec in images.SPECS.items():
        assert all("==" in requirement for requirement in spec.requirements), name
        assert "python3" in spec.packages, name


@pytest.mark.parametrize("kind", ["docker", "bwrap"])
async def test_an_unknown_image_names_the_choices(kind: str) -> None:
    provider = open_provider(kind)
    try:
        with pytest.raises(UnknownImage, match="office, python"):
            await provider.prepare(["pyhton"])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    finally:
        await provider.close()


def test_an_unknown_provider_names_the_choices() -> None:
    with pytest.raises(ValueError, match="auto, docker, bwrap"):
        open_provider("podman")


def test_auto_takes_bwrap_where_no_engine_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert open_provider("auto").name == "bwrap"
    with pytest.raises(EngineUnavailable, match="rollmill doctor"):
        connect()
    finding = ensure_engine(fix=True)  # a remote engine is not ours to start
    assert not finding.ok
    assert finding.fix


HOLD = """
import sys, time
from rollmill.workspaces import images

with images.building(sys.argv[1]), open(sys.argv[2], "a") as out:
    print("in", end=" ", file=out, flush=True)
    time.sleep(0.2)
    print("out", end=" ", file=out)
"""


def test_builders_of_one_image_take_turns(tmp_path: Path) -> None:
    log, name = tmp_path / "log", f"test-{tmp_path.name}"
    command = [sys.executable, "-c", HOLD, name, str(log)]
    builders = [subprocess.Popen(command, cwd="/") for _ in range(3)]
    assert [builder.wait() for builder in builders] == [0, 0, 0]
    assert log.read_text() == "in out " * 3
    (images.cache_dir() / f"{name}.lock").unlink()


def test_findings_say_what_to_do_about_what_does_not_work() -> None:
    found = findings()
    assert {"engine", "mmdebstrap", "bwrap", "disk", "soffice"} <= {f.name for f in found}
    for finding in found:
        assert finding.detail
        assert finding.ok != bool(finding.fix)
