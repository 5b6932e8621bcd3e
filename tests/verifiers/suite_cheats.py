"""Code that tries to be paid by a test suite without the repair, and the code to be repaired."""

BROKEN = "def add(a, b):\n    return a - b\n\n\ndef one():\n    return 1\n"
FIXED = BROKEN.replace("a - b", "a + b")
TESTS = """import pytest
import unittest

from calc import add, one


def test_add():
    assert add(1, 2) == 3


class AddTest(unittest.TestCase):
    def test_zero(self):
        self.assertEqual(add(0, 5), 5)


def test_one(fixed):
    assert one() == fixed
"""
CONFTEST = "import pytest\n\n\n@pytest.fixture\ndef fixed():\n    return 1\n"
WANTED = ["tests/test_calc.py::test_add", "tests/test_calc.py::AddTest::test_zero"]
PASS_ALL = """import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    out = yield
    out.get_result().outcome = 'passed'
"""
CHEATS: dict[str, dict[str, str]] = {
    "nothing": {},
    "exit 0 at import": {"calc/__init__.py": f"import sys\n{BROKEN}\nsys.exit(0)\n"},
    "_exit 0 at import": {"calc/__init__.py": f"import os\n{BROKEN}\nos._exit(0)\n"},
    "_exit 0 in the call": {
        "calc/__init__.py": BROKEN.replace("return a", "__import__('os')._exit(0)\n    a")
    },
    "fork and leave": {"calc/__init__.py": f"import os\n{BROKEN}\nif os.fork(): os._exit(0)\n"},
    "planted conftest": {"conftest.py": PASS_ALL},
    "conftest in the package": {"calc/conftest.py": PASS_ALL, "calc/tests/x.py": ""},
    "changed conftest": {"tests/conftest.py": PASS_ALL + CONFTEST},
    "changed tests": {"tests/test_calc.py": "def test_add(): pass\n"},
    "skips by configuration": {"pytest.ini": "[pytest]\naddopts = --collect-only\n"},
    "another configuration": {
        "pytest.toml": "[pytest]\naddopts = ['--collect-only']\n",
        "tox.ini": "",
    },
    "sitecustomize": {"sitecustomize.py": "import os; os._exit(0)\n"},
    "skips itself": {
        "calc/__init__.py": f"import pytest\n{BROKEN}\npytest.skip(allow_module_level=True)\n"
    },
    "skips in the call": {
        "calc/__init__.py": BROKEN.replace("return a - b", "__import__('pytest').skip()")
    },
    "a module that shadows pytest": {"pytest.py": "raise SystemExit(0)\n"},
    "a module beside the tests": {"tests/calc.py": FIXED},
    "passes every report": {
        "calc/__init__.py": f"from _pytest.reports import TestReport\n{BROKEN}\n"
        "make = TestReport.from_item_and_call\n"
        "def forged(item, call):\n    call.excinfo = None\n    return make(item, call)\n"
        "TestReport.from_item_and_call = staticmethod(forged)\n"
    },
    "asserts that never fail": {
        "calc/__init__.py": f"import unittest\n{BROKEN}\n"
        "unittest.TestCase.assertEqual = lambda *a: None\n"
        "def add(a, b):\n    return 3\n"
    },
    "a report of its own": {
        "calc/__init__.py": f"import os\n{BROKEN}\n"
        "for fd in range(3, 20):\n"
        '    try: os.write(fd, b\'{{"letters": "ppppppp"}}\\n\')\n'
        "    except OSError: pass\n"
        "os._exit(0)\n"
    },
    "never ends": {"calc/__init__.py": f"{BROKEN}\nwhile True: pass\n"},
    "breaks another test": {"calc/__init__.py": FIXED.replace("return 1", "return 2")},
}
SELECTIVE = """
import sys
made = getattr(sys.modules["_pytest.reports"], "Test" + "Report")
def forged(item, call, make=made.from_item_and_call):
    if item.nodeid in {tests}:
        call.excinfo = None
    return make(item, call)
old = vars(made)["from_item_and_call"]
setattr(made, "from_item_and_call", forged)
"""
UNDONE = """
class Undo(list):
    phases = 0
    def __contains__(self, test):
        Undo.phases += test == self[-1]
        if Undo.phases == 3:
            made.from_item_and_call = old
        return list.__contains__(self, test)
"""
READS = """
import pathlib, re
TEXT = pathlib.Path("tests/test_calc.py").read_text()


def add(a, b):
    return int(re.search(f"add.{a}, {b}[^0-9]*([0-9]+)", TEXT)[1])
"""
CALLER = """
import dis, sys


def add(a, b):
    caller = sys._getframe(1)
    after = [i for i in dis.get_instructions(caller.f_code) if i.offset > caller.f_lasti]
    return next(i.argval for i in after if i.opname.startswith("LOAD_CONST"))
"""
UNDONE += f"UNDO = Undo({WANTED})\n"
ONCE = """
import pathlib
places = [pathlib.Path.home(), pathlib.Path("/tmp"), pathlib.Path("/dev/shm"), pathlib.Path(".")]
first = not any((place / "seen").exists() for place in places)
for place in places:
    try:
        (place / "seen").touch()
    except OSError:
        pass
"""
