"""A server over a real socket, with a tiny random model behind it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import openai
import pytest
import torch
import uvicorn

from rollmill.model.config import ModelConfig
from rollmill.model.engine import AsyncEngine, Engine
from rollmill.model.model import Model
from rollmill.model.server import ServerSettings, build_app
from rollmill.model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["ls -la\n hello there command bash " * 5], 300)


@pytest.fixture(scope="module")
def address(make_config: Callable[..., ModelConfig], tokenizer: Tokenizer) -> Iterator[str]:
    torch.manual_seed(0)
    model = Model(make_config(vocab_size=300, max_position_embeddings=2048))
    with AsyncEngine(Engine(model, slots=4, max_waiting=4)) as engine:
        settings = ServerSettings(name="tiny", fingerprint="f00d", context=2048, vocab_size=300)
        app = build_app(engine, tokenizer, settings)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=20, lifespan="off")
        )
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client
