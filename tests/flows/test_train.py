"""What `train sft` starts from, and what it hands to the trainer."""

from pathlib import Path

import pytest

from rollmill.flows.config import ConfigError
from rollmill.flows.train import _first_weights
from rollmill.model.tokenizer import Tokenizer


def test_a_broken_checkpoint_to_start_from_is_bad_input_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"attn_type_list": 5}')
    Tokenizer.train(["abc"], 300).save(tmp_path / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"cannot start from .*config\.json: .*attn_type_list"):
        _first_weights(str(tmp_path))
