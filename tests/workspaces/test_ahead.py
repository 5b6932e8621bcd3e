"""Workspaces of bubblewrap wait ready for their use, and nobody gets a used one."""

import asyncio

import pytest

from rollmill.workspaces import EngineUnavailable, PooledProvider, open_provider, opened
from rollmill.workspaces.conformance import SPEC, bash


async def test_what_is_expected_is_started_ahead_and_used_once() -> None:
    provider = open_provider("bwrap")
    assert isinstance(provider, PooledProvider)
    try:
        await provider.prepare([SPEC.image])
    except EngineUnavailable as error:
        pytest.skip(str(error))
    try:
        provider.expect(SPEC, 3)
        async with asyncio.timeout(60):
            while provider.counts["started"] < 3:
                await asyncio.sleep(0.01)
        for _ in range(3):
            async with opened(provider, SPEC) as workspace:
                seen = await bash(workspace, "ls /tmp; touch /tmp/mine; cat seed.txt")
                assert seen.stdout == "seed\n"
        assert provider.counts["ahead"] == provider.counts["started"] == 3
        assert provider.counts["recycled"] == 0
    finally:
        await provider.close()
