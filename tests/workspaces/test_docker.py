"""What only containers do: survive nothing, leave nothing, and say when they are gone."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rollmill.workspaces import DockerProvider, WorkspaceGone, leftovers, opened
from rollmill.workspaces.conformance import SPEC
from rollmill.workspaces.engine import connect
from rollmill.workspaces.reaper import LABEL, RUN_LABEL

pytestmark = pytest.mark.docker

HOST = """
import asyncio, sys
from rollmill.workspaces import DockerProvider
from rollmill.workspaces.conformance import SPEC

async def main():
    provider = DockerProvider(run_id=sys.argv[1])
    first = await provider.open(SPEC)
    print("open", flush=True)
    asyncio.create_task(first.exec(["sleep", "200"]))
    while True:
        await (await provider.open(SPEC)).close()

asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", [0.0, 0.07, 0.4])
def test_a_killed_host_leaves_no_container(after_s: float) -> None:
    run_id = f"killed-{os.getpid()}-{after_s}"
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, run_id], stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == "open\n"
        time.sleep(after_s)
        assert leftovers(run_id)
        host.send_signal(signal.SIGKILL)
        host.wait()
    give_up = time.monotonic() + 10
    while leftovers(run_id) and time.monotonic() < give_up:
        time.sleep(0.2)
    assert leftovers(run_id) == []


async def test_a_container_killed_from_outside_is_gone_and_not_a_result() -> None:
    run_id = f"outside-{os.getpid()}"
    provider = DockerProvider(run_id=run_id)
    async with opened(provider, SPEC) as workspace:
        running = asyncio.create_task(workspace.exec(["sleep", "60"]))
        await asyncio.sleep(0.3)
        client, _ = connect()
        client.kill(leftovers(run_id)[0])
        client.close()
        with pytest.raises(WorkspaceGone, match="gone"):
            await running
        with pytest.raises(WorkspaceGone):
            await workspace.exec(["true"])
    await provider.close()
    assert leftovers(run_id) == []


async def test_an_opening_that_is_cancelled_leaves_nothing() -> None:
    run_id = f"cancelled-{os.getpid()}"
    provider = DockerProvider(run_id=run_id)
    await provider.prepare(["python"])
    for wait_s in (0.0, 0.02, 0.1, 0.3):
        opening = asyncio.create_task(provider.open(SPEC))
        await asyncio.sleep(wait_s)
        if not opening.cancel():  # a fast engine was done before us
            await (await opening).close()
            continue
        with pytest.raises(asyncio.CancelledError):
            await opening
    give_up = time.monotonic() + 10
    while leftovers(run_id) and time.monotonic() < give_up:
        await asyncio.sleep(0.2)
    assert leftovers(run_id) == []
    await provider.close()


async def test_closing_the_provider_closes_its_workspaces() -> None:
    run_id = f"closed-{os.getpid()}"
    provider = DockerProvider(run_id=run_id)
    await asyncio.gather(provider.open(SPEC), provider.open(SPEC))
    assert len(leftovers(run_id)) == 2
    await provider.close()
    await provider.close()
    assert leftovers(run_id) == []


def test_threads_with_their_own_loops_each_open_workspaces() -> None:
    outputs: list[str] = []

    async def work(number: int) -> None:
        provider = DockerProvider(run_id=f"thread-{os.getpid()}")
        async with opened(provider, SPEC) as workspace:
            outputs.append((await workspace.exec(["echo", str(number)])).stdout)
        await provider.close()

    threads = [threading.Thread(target=lambda n=n: asyncio.run(work(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == ["0\n", "1\n", "2\n", "3\n"]
    assert leftovers(f"thread-{os.getpid()}") == []


async def test_containers_carry_our_labels_and_no_standing_privilege() -> None:
    run_id = f"labels-{os.getpid()}"
    provider = DockerProvider(run_id=run_id)
    async with opened(provider, SPEC):
        client, _ = connect()
        facts = client.inspect_container(leftovers(run_id)[0])
        client.close()
    await provider.close()
    host = facts["HostConfig"]
    assert facts["Config"]["Labels"][LABEL] == "1"
    assert facts["Config"]["Labels"][RUN_LABEL] == run_id
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Privileged"]) == (
        "none",
        True,
        False,
    )
    assert host["Memory"] == host["MemorySwap"] == SPEC.limits.memory_bytes
    assert host["Binds"] is None


@pytest.mark.office
async def test_the_office_image_recalculates_a_workbook() -> None:
    write = (
        "import openpyxl; book = openpyxl.Workbook(); sheet = book.active; "
        "sheet['A1'] = 2; sheet['A2'] = '=A1*21'; book.save('a.xlsx')"
    )
    read = (
        "import openpyxl; "
        "print(openpyxl.load_workbook('out/a.xlsx', data_only=True).active['A2'].value)"
    )
    provider = DockerProvider(run_id=f"office-{os.getpid()}")
    spec = type(SPEC)(image="office")
    async with opened(provider, spec) as workspace:
        assert (await workspace.exec(["python3", "-c", write])).exit_code == 0
        convert = ["soffice", "--headless", "--convert-to", "xlsx", "--outdir", "out", "a.xlsx"]
        converted = await workspace.exec(convert)
        assert converted.exit_code == 0, converted
        assert (await workspace.exec(["python3", "-c", read])).stdout == "42\n"
        assert (await workspace.exec(["python3", "-c", "import uno, docx"])).exit_code == 0
    await provider.close()


async def test_a_workspace_in_use_starts_commands_without_a_copy_of_the_runner() -> None:
    provider = DockerProvider(run_id=f"swift-{os.getpid()}")
    async with opened(provider, SPEC) as workspace:
        page_faults = ["cut", "-d", " ", "-f", "10", "/proc/self/stat"]
        first, *_, last = [int((await workspace.exec(page_faults)).stdout) for _ in range(4)]
        service = await workspace.start(["sleep", "60"])  # somebody else is alive
        beside = int((await workspace.exec(page_faults)).stdout)
        await service.stop()
    await provider.close()
    assert last < first / 2 < beside
