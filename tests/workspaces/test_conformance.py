"""Every real provider against every check of the contract."""

from collections.abc import AsyncIterator

import pytest

from rollmill.workspaces import PROVIDERS, EngineUnavailable, Provider, open_provider
from rollmill.workspaces.bwrap import writable_cgroups
from rollmill.workspaces.conformance import CHECKS

KNOWN_GAPS: dict[tuple[str, str], str] = {}
if not writable_cgroups():
    KNOWN_GAPS["bwrap", "processes_are_limited"] = "root is exempt from RLIMIT_NPROC"


KINDS = [pytest.param(n, marks=[pytest.mark.docker] if n == "docker" else []) for n in PROVIDERS]


@pytest.fixture(params=KINDS)
async def provider(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    provider = open_provider(request.param, run_id="conformance")
    try:
        await provider.prepare(["python"])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    yield provider
    await provider.close()


@pytest.mark.parametrize("check", CHECKS)
async def test_provider_keeps_the_contract(provider: Provider, check: str) -> None:
    if (provider.name, check) in KNOWN_GAPS:
        pytest.skip(KNOWN_GAPS[provider.name, check])
    await CHECKS[check](provider)
