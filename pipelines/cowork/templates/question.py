"""A question about a table, answered in `answer.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...task import Move
from ..scene import Sample, Scene
from ..sheets import csv_bytes, plain
from .template import Draft, Template, look, script

OUTPUT = "answer.json"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, its right answer, and Python that finds it from `rows`, a list of dicts."""

    text: str
    answer: Mapping[str, Any]
    """Key -> `{"value": V}` as `AnswerVerifier` takes it."""
    code: str


def top(scene: Scene, sample: Sample) -> Question:
    """Which category has the largest sum."""
    category, number = sample.category, sample.numbers[0]
    sums = sample.frame.groupby(category)[number].sum()
    return Question(
        text=scene.pick(
            (
                "Which {c} has the largest sum of {n}, and what is that sum? Use the keys 'name' "
                "and 'total'.",
                "Find the {c} with the highest total {n}. Give it as 'name' and its total as "
                "'total'.",
            )
        ).format(c=category, n=number),
        answer={"name": {"value": plain(sums.idxmax())}, "total": {"value": plain(sums.max())}},
        code=f"""
        sums = {{}}
        for row in rows:
            sums[row[{category!r}]] = sums.get(row[{category!r}], 0) + row[{number!r}]
        name = max(sums, key=sums.get)
        answer = {{'name': name, 'total': sums[name]}}
        """,
    )


def count(scene: Scene, sample: Sample) -> Question:
    """How many rows of a category are above a threshold."""
    category, number = sample.category, sample.numbers[0]
    value = _value(scene, sample)
    limit = plain(scene.pick(sorted(sample.frame[number].tolist())[3:-3]))
    held = (sample.frame[category] == value) & (sample.frame[number] > limit)
    return Question(
        text=scene.pick(
            (
                "How many rows with {c} {v} have {n} above {l}? Use the key 'count'.",
                "Count the rows where {c} is {v} and {n} is greater than {l}; the key is 'count'.",
            )
        ).format(c=category, v=value, n=number, l=limit),
        answer={"count": {"value": int(held.sum())}},
        code=f"""
        held = [row for row in rows if row[{category!r}] == {value!r} and row[{number!r}] > {limit}]
        answer = {{'count': len(held)}}
        """,
    )


def share(scene: Scene, sample: Sample) -> Question:
    """What part of the rows a category has."""
    category, value = sample.category, _value(scene, sample)
    part = float((sample.frame[category] == value).mean() * 100)
    return Question(
        text=scene.pick(
            (
                "What percentage of the rows has {c} {v}? Use the key 'percent', at least two "
                "decimals.",
                "Give the share of rows where {c} is {v}, in percent with two decimals or more, "
                "as 'percent'.",
            )
        ).format(c=category, v=value),
        answer={"percent": {"value": part, "absolute": 0.0051}},
        code=f"""
        held = [row for row in rows if row[{category!r}] == {value!r}]
        answer = {{'percent': 100 * len(held) / len(rows)}}
        """,
    )


def median(scene: Scene, sample: Sample) -> Question:
    """The median of a number within a category."""
    category, number, value = sample.category, sample.numbers[0], _value(scene, sample)
    found = float(sample.frame[sample.frame[category] == value][number].median())
    return Question(
        text=scene.pick(
            (
                "What is the median {n} of the rows with {c} {v}? Use the key 'median'.",
                "Give the median of {n} where {c} is {v}, as 'median'.",
            )
        ).format(c=category, v=value, n=number),
        answer={"median": {"value": found}},
        code=f"""
        import statistics
        held = [row[{number!r}] for row in rows if row[{category!r}] == {value!r}]
        answer = {{'median': statistics.median(held)}}
        """,
    )


def average(scene: Scene, sample: Sample) -> Question:
    """The mean of a number within a category and over all rows."""
    category, number, value = sample.category, sample.numbers[0], _value(scene, sample)
    frame = sample.frame
    return Question(
        text=scene.pick(
            (
                "What is the average {n} of all rows, and of the rows with {c} {v}? Use the keys "
                "'all' and 'selected'.",
                "Give the mean of {n} over all rows as 'all' and where {c} is {v} as 'selected'.",
            )
        ).format(c=category, v=value, n=number),
        answer={
            "all": {"value": float(frame[number].mean())},
            "selected": {"value": float(frame[frame[category] == value][number].mean())},
        },
        code=f"""
        import statistics
        every = [row[{number!r}] for row in rows]
        held = [row[{number!r}] for row in rows if row[{category!r}] == {value!r}]
        answer = {{'all': statistics.mean(every), 'selected': statistics.mean(held)}}
        """,
    )


QUESTIONS: tuple[Callable[[Scene, Sample], Question], ...] = (top, count, share, median, average)


def make(scene: Scene) -> Draft:
    """See `Template.make`."""
    plain_csv = scene.rng.random() < 0.4
    sample = scene.sample(category=True, texts_only=plain_csv)
    ask = scene.pick(QUESTIONS)
    question = ask(scene, sample)
    grid = scene.grid(sample.frame, offset=False)
    name = f"{scene.table.name}.csv" if plain_csv else scene.book
    data = csv_bytes(sample.frame) if plain_csv else scene.workbook(grid)
    place = name if plain_csv else f"the sheet {grid.sheet!r} of {name}"
    instruction = " ".join(
        [
            scene.pick(("Look at {}.", "This is about {}.", "Use {}.")).format(place),
            question.text,
            scene.pick(
                (
                    f"Write the answer to {OUTPUT}, a JSON object.",
                    f"Put the answer as a JSON object into {OUTPUT}.",
                )
            ),
        ]
    )
    return Draft(
        instruction=instruction,
        files={name: data},
        output=OUTPUT,
        verifier="answer",
        expected=question.answer,
        solution=(
            _look(scene, name, plain_csv),
            _answer(sample, name, "" if plain_csv else grid.sheet, question),
            script(f"I check {OUTPUT}.", f"print(open({OUTPUT!r}).read())"),
        ),
        detail={"question": ask.__name__},
    )


def _look(scene: Scene, name: str, plain_csv: bool) -> Move:
    if not plain_csv:
        return look(scene, name)
    return script(f"First I look at {name}.", f"print(open({name!r}).read()[:300])")


def _answer(sample: Sample, name: str, sheet: str, question: Question) -> Move:
    number = sample.numbers[0]
    if sheet:
        read = f"""
        import json, openpyxl
        ws = openpyxl.load_workbook({name!r})[{sheet!r}]
        head = [c.value for c in ws[1]]
        rows = [dict(zip(head, row)) for row in ws.iter_rows(min_row=2, values_only=True)]
        """
    else:
        read = f"""
        import csv, json
        rows = list(csv.DictReader(open({name!r})))
        for row in rows:
            row[{number!r}] = float(row[{number!r}])
        """
    write = f"""
        json.dump(answer, open({OUTPUT!r}, 'w'))
        """
    return script("I read the rows and compute the answer.", read + question.code + write)


def _value(scene: Scene, sample: Sample) -> Any:
    return scene.pick(sorted(sample.frame[sample.category].unique().tolist()))


TEMPLATE = Template(name="question", make=make, needs={"category": 1, "number": 1})
