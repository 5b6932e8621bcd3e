"""Real workspaces for the tests of verifiers."""

from collections.abc import AsyncIterator

import pytest

from rollmill.workspaces import DockerProvider


@pytest.fixture
async def provider() -> AsyncIterator[DockerProvider]:
    provider = DockerProvider()
    yield provider
    await provider.close()
