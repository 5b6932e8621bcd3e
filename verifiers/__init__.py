"""What an artifact is worth. Verifiers by name; a new one is one file and one line here."""

from .answer import AnswerVerifier
from .base import Verifier
from .deck import DeckVerifier
from .document import DocumentVerifier
from .integrity import flags_of, inspected
from .state import StateVerifier
from .table import TableVerifier
from .test_suite import TestSuiteVerifier
from .types import Check, Outcome, Verdict, VerifierSpec, judge, judge_edit
from .workbook import WorkbookVerifier

VERIFIERS: dict[str, type[Verifier]] = {
    verifier.name: verifier
    for verifier in (
        AnswerVerifier,
        DeckVerifier,
        DocumentVerifier,
        StateVerifier,
        TableVerifier,
        TestSuiteVerifier,
        WorkbookVerifier,
    )
}


def get_verifier(name: str) -> Verifier:
    """A verifier by its name.

    Raises:
        ValueError: nobody has it; the message lists the choices.
    """
    if name not in VERIFIERS:
        raise ValueError(f"unknown verifier {name!r}; choose one of: {', '.join(VERIFIERS)}")
    return VERIFIERS[name]()


__all__ = [
    "VERIFIERS",
    "Check",
    "Outcome",
    "Verdict",
    "Verifier",
    "VerifierSpec",
    "flags_of",
    "get_verifier",
    "inspected",
    "judge",
    "judge_edit",
]
