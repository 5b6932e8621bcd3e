"""The shape of a model, under Hugging Face's names; reads and writes `config.json`.

Only MiniMax-M2's architecture: a config that asks for anything else is refused, not approximated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

# What a config may say about the architecture. A key that is absent means the same.
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "model_type": ("minimax_m2",),
    "hidden_act": ("silu",),
    "scoring_func": ("sigmoid",),
    "use_qk_norm": (True,),
    "qk_norm_type": ("per_layer",),
    "use_routing_bias": (True,),
    "shared_intermediate_size": (0,),
    "tie_word_embeddings": (False,),
    "rope_scaling": (None,),
    "sliding_window": (None,),
    "router_jitter_noise": (0.0,),
    "attention_dropout": (0.0,),
    "mtp_transformer_layers": (1,),
}
MAX_MTP_MODULES = 3
"""As many as M2 drafts with."""
_TOO_LARGE = 2**31
"""No size of a model comes near it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Sizes of a model.

    Raises:
        ValueError: a size makes no sense; names the field.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    """Each serves `num_attention_heads / num_key_value_heads` query heads."""
    head_dim: int
    rotary_dim: int
    """How many of `head_dim` carry the position."""
    intermediate_size: int
    """Of one expert."""
    num_local_experts: int
    num_experts_per_tok: int
    max_position_embeddings: int = 4096
    """Tokens of context, prompt and completion together."""
    rope_theta: float = 5_000_000.0
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    num_mtp_modules: int = 0
    """Multi-token prediction modules that belong to the model, 0 to 3. The published configs say 3
    and the published weights hold none."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "num_mtp_modules":
                _require(
                    0 <= value <= MAX_MTP_MODULES,
                    f"num_mtp_modules must be 0 to {MAX_MTP_MODULES}, got {value}",
                )
            elif not each.name.endswith("_token_id"):
                _require(
                    0 < value < _TOO_LARGE,
                    f"{each.name} must be positive and below {_TOO_LARGE}, got {value}",
                )
            elif value is not None:
                valid = 0 <= value < self.vocab_size
                _require(valid, f"{each.name} must be below {self.vocab_size}, got {value}")
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_attention_heads must be a multiple of num_key_value_heads, "
            f"got {self.num_attention_heads} and {self.num_key_value_heads}",
        )
        _require(
            self.rotary_dim <= self.head_dim and self.rotary_dim % 2 == 0,
            f"rotary_dim must be even and at most head_dim ({self.head_dim}), "
            f"got {self.rotary_dim}",
        )
        _require(
            self.num_experts_per_tok <= self.num_local_experts,
            f"num_experts_per_tok must be at most num_local_experts ({self.num_local_experts}), "
            f"got {self.num_experts_per_tok}",
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what a `config.json` says; keys that do not change the model are ignored.

        Raises:
            ValueError: a key is missing, of the wrong type, or asks for another architecture.
        """
        _refuse_other_architectures(raw)
        known = dict(_rotary(raw))
        if raw.get("use_mtp") is False:
            known["num_mtp_modules"] = 0
        missing = []
        for each in fields(cls):
            if (value := known.get(each.name, raw.get(each.name))) is not None:
                known[each.name] = _checked(each.name, str(each.type), value)
            elif each.default is MISSING:
                missing.append(each.name)
        _require(not missing, f"expected a config with all sizes, got one without {missing}")
        return cls(**known)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a `config.json`, or the one in the folder `path`.

        Raises:
            ValueError: it is not JSON, or not a model of this architecture.
            FileNotFoundError: there is none.
        """
        file = path / "config.json" if path.is_dir() else path
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            _require(isinstance(raw, dict), "expected a JSON object")
            return cls.from_dict(raw)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"cannot use {file}: {error}") from error

    def to_json(self) -> str:
        """A `config.json` that `transformers.AutoConfig` reads too."""
        fixed = {"architectures": ["MiniMaxM2ForCausalLM"]} | {
            key: allowed[0] for key, allowed in _FIXED.items() if allowed[0] is not None
        }
        return json.dumps(fixed | asdict(self), indent=2, sort_keys=True) + "\n"

    def save(self, path: Path) -> None:
        """Write `to_json` to the file `path`."""
        path.write_text(self.to_json(), encoding="utf-8")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _refuse_other_architectures(raw: Mapping[str, Any]) -> None:
    for key, allowed in _FIXED.items():
        _require(
            key not in raw or raw[key] in allowed,
            f"expected {key} = {allowed[0]!r}, got {raw.get(key)!r}; "
            "only MiniMax-M2's architecture is known here",
        )
    attention = raw.get("attn_type_list")
    _require(
        attention is None or (isinstance(attention, list) and all(kind == 1 for kind in attention)),
        f"expected full attention (1) in all of attn_type_list, got {attention!r}",
    )


def _rotary(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """`rotary_dim` and `rope_theta` from where transformers 5 writes them."""
    rope = raw.get("rope_parameters") or {}
    _require(isinstance(rope, Mapping), f"expected an object as rope_parameters, got {rope!r}")
    kind = rope.get("rope_type", "default")
    _require(kind == "default", f"expected rope_type 'default', got {kind!r}")
    found = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    if "rotary_dim" not in raw and raw.get("head_dim") is not None:
        size = _checked("head_dim", "int", raw["head_dim"])
        share = _checked("partial_rotary_factor", "float", rope.get("partial_rotary_factor", 1.0))
        found["rotary_dim"] = int(size * share)
    return found


def _checked(name: str, kind: str, value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "float":
        finite = number and abs(value) < _TOO_LARGE
        _require(finite, f"expected a finite number for {name}, got {value!r}")
        return float(value)
    whole = isinstance(value, int) and number
    _require(whole, f"expected a whole number for {name}, got {value!r}")
    _require(abs(value) < _TOO_LARGE, f"{name} must be below {_TOO_LARGE}, got {value}")
    return value
