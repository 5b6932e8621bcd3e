"""What an artifact is worth. Verifiers by name; a new one is one file and one line here."""

from collections.abc import Sequence

from .answer import AnswerVerifier
from .base import Verifier
from .deck import DeckVerifier
from .document import DocumentVerifier
from .integrity import flags_of, inspected
from .rubric import RubricVerifier, agreement_of
from .rubric_panel import Judge, JudgeError, Question
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
        RubricVerifier,
        StateVerifier,
        TableVerifier,
        TestSuiteVerifier,
        WorkbookVerifier,
    )
}


def get_verifier(name: str, *, panel: Sequence[Judge] = ()) -> Verifier:
    """A verifier by its name.

    Args:
        panel: who judges where a model must; all other verifiers do without.

    Raises:
        ValueError: nobody has it; the message lists the choices.
    """
    if name not in VERIFIERS:
        raise ValueError(f"unknown verifier {name!r}; choose one of: {', '.join(VERIFIERS)}")
    verifier = VERIFIERS[name]
    return RubricVerifier(panel) if verifier is RubricVerifier else verifier()


__all__ = [
    "VERIFIERS",
    "Check",
    "Judge",
    "JudgeError",
    "Outcome",
    "Question",
    "RubricVerifier",
    "Verdict",
    "Verifier",
    "VerifierSpec",
    "agreement_of",
    "flags_of",
    "get_verifier",
    "inspected",
    "judge",
    "judge_edit",
]
