"""A renamed demonstration says the same under names that belong to no source."""

import json
from typing import Any

from rollmill.pipelines.renaming import names_by_source, renamed, vocabulary

CODE = "wb = load('cars.xlsx')\nprint(wb['Weight'], wb['gross_weight'])"


def row(source: str, user: str, code: str) -> dict[str, Any]:
    def message(role: str, content: str = "", calls: list[Any] | None = None) -> dict[str, Any]:
        return {"role": role, "content": content, "reasoning": "", "tool_calls": calls or []}

    call = {"name": "bash", "arguments": json.dumps({"command": code, "timeout_s": 5})}
    messages = [message("system", "Be brief."), message("user", user)]
    return {
        "provenance": {"source": source},
        "tools": "[]",
        "messages": [*messages, message("assistant", calls=[call])],
    }


ROWS = [
    row("cars", "Print the Weight and gross_weight in cars.xlsx.", CODE),
    row("irises", "Print Petal in irises.xlsx.", "wb = load('irises.xlsx')\nprint(wb['Petal'])"),
]


def test_only_words_of_one_source_that_the_agent_was_told_are_names() -> None:
    assert names_by_source(ROWS) == {
        "cars": {"cars", "weight", "gross"},
        "irises": {"irises", "petal"},
    }


def test_a_name_becomes_the_same_other_word_everywhere_in_its_own_case() -> None:
    pool = ["alpha", "beta", "gamma", "print"]
    copy = renamed(ROWS[0], names_by_source(ROWS)["cars"], pool, seed="1")
    user = copy["messages"][1]["content"]
    arguments = json.loads(copy["messages"][2]["tool_calls"][0]["arguments"])
    told = user.rstrip(".").split()
    weight, gross, book = told[2], told[4], told[6]
    assert weight.istitle()
    assert {weight.lower(), gross.split("_")[0], book.split(".")[0]} == {"alpha", "beta", "gamma"}
    assert gross.split("_")[1] == weight.lower()
    other = CODE.replace("cars.xlsx", book).replace("gross_weight", gross).replace("Weight", weight)
    assert arguments == {"command": other, "timeout_s": 5}
    assert copy["messages"][0] == ROWS[0]["messages"][0]
    assert renamed(ROWS[0], frozenset({"cars"}), pool, seed="1") != copy


def test_copies_depend_on_their_seed_alone() -> None:
    names = names_by_source(ROWS)["cars"]
    pool = vocabulary(["Some words, Words to choose_from, A2 of them"])
    assert pool == ["choose", "from", "some", "them", "words"]
    assert renamed(ROWS[0], names, pool, seed="1") == renamed(ROWS[0], names, pool, seed="1")
    copies = {json.dumps(renamed(ROWS[0], names, pool, seed=str(n))) for n in range(20)}
    assert len(copies) > 5
