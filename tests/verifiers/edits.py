"""Makes files by programs of the office image, many edits in one process, and reads verdicts."""

from collections.abc import Sequence

from rollmill.verifiers import Verdict
from rollmill.workspaces import Workspace


async def run(workspace: Workspace, code: str, path: str) -> bytes:
    """The file that a program leaves."""
    done = await workspace.exec(["python3", "-c", code])
    assert done.exit_code == 0, done.stderr
    return await workspace.get(path, max_bytes=4 << 20)


async def edited(workspace: Workspace, opening: str, edits: Sequence[str]) -> list[bytes]:
    """The seed after each edit; `opening` binds it to `d`."""
    lines = [f"{opening}{edit}\nd.save('/tmp/{at}')" for at, edit in enumerate(edits)]
    code = f"for code in {lines!r}:\n    exec(code, {{}})"
    done = await workspace.exec(["python3", "-c", code])
    assert done.exit_code == 0, done.stderr
    return [await workspace.get(f"/tmp/{at}", max_bytes=4 << 20) for at in range(len(edits))]


async def by_office(workspace: Workspace, data: bytes, ending: str, reader: str) -> bytes:
    """A file as LibreOffice saves it."""
    place = "/tmp/converted"
    await workspace.put(f"{place}/file{ending}", data)
    command = [
        *("soffice", f"-env:UserInstallation=file://{place}/profile", "--headless"),
        *("--convert-to", f"{ending[1:]}:{reader}", "--outdir", f"{place}/out", f"file{ending}"),
    ]
    done = await workspace.exec(command, cwd=place, timeout_s=120)
    assert done.exit_code == 0, done.stderr
    return await workspace.get(f"{place}/out/file{ending}", max_bytes=4 << 20)


def failed(verdict: Verdict) -> str:
    """The names of the checks that did not pass."""
    return " ".join(check.name for check in verdict.checks if check.outcome != "pass")
