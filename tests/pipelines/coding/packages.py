"""Two tiny packages with tests, written out as folders, to make tasks from."""

from pathlib import Path

SHOP = {
    "LICENSE": "MIT\n",
    "shop/__init__.py": "",
    "shop/price.py": '''"""Prices."""


def total(prices, discount=0, rounded=True):
    """The sum, less a discount in per cent."""
    amount = sum(prices)  # before the discount
    if discount > 0:
        amount = amount * (100 - discount) / 100
    if rounded:
        return round(amount, 2)
    return amount


def cheapest(prices, limit):
    """The prices up to a limit, in order."""
    found = []
    for price in prices:
        if price is None:
            continue
        if price <= limit and not price < 0:
            found.append(price)
    return sorted(found)


def steps(start):
    """How many steps lead from start to zero."""
    taken = 0
    while start > 0:
        taken += 1
        start -= 1
    return taken
''',
    "tests/test_price.py": """import pytest

from shop.price import cheapest, steps, total


def test_total_adds():
    assert total([1, 2.5]) == 3.5


def test_total_takes_the_discount_off():
    assert total([100, 100], 25) == 150


def test_total_can_stay_exact():
    assert total([10], 1 / 3, rounded=False) != round(total([10], 1 / 3, rounded=False), 2)


@pytest.mark.parametrize("limit, expected", [(2, [1, 2]), (0, [0]), (9, [1, 2, 5])])
def test_cheapest(limit, expected):
    prices = [0] if limit == 0 else [5, None, 2, 1, -3]
    assert cheapest(prices, limit) == expected


def test_steps():
    assert steps(3) == 3


def test_no_steps():
    assert steps(0) == 0


@pytest.mark.skip(reason="not today")
def test_later():
    assert False
""",
}
WORDS = {
    "src/words/__init__.py": '''def join(left, right, glue=" "):
    """Two words in order."""
    return left + glue + right


def shout(word):
    """A word in capitals, or nothing at all."""
    if not word:
        return None
    return word.upper()
''',
    "src/words/tests/test_words.py": """import unittest

from words import join, shout


class WordsTest(unittest.TestCase):
    def test_join(self):
        self.assertEqual(join("a", "b"), "a b")

    def test_shout(self):
        self.assertEqual(shout("hey"), "HEY")

    def test_shout_nothing(self):
        self.assertIsNone(shout(""))
""",
}


def write_package(folder: Path, files: dict[str, str], **changes: str | None) -> Path:
    """Lay a package out; `changes` replaces files of these names, None leaves one out."""
    for name, text in {**files, **changes}.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder
