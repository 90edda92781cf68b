"""What a study did not score though it could have been expected to; nothing is left out in silence."""

from __future__ import annotations

from collections.abc import Iterable

from segmentation.study.records import Configuration, Row
from segmentation.study.statistics import NAMED
from segmentation.study.study_results import StudyResults, cohort_name


def missing_sentences(study: StudyResults) -> list[str]:
    """Name scans, models, cohorts and folds that some configurations have and others lack.

    A configuration is held against all others of the same number of folds on the same cohort: what one of them
    scored, each of its seeds should have scored.
    """
    sentences = [f"planned, not done: {name}" for name in study.about.get("runs_missing", [])][:NAMED]
    more = len(study.about.get("runs_missing", [])) - len(sentences)
    if more > 0:
        sentences.append(f"planned, not done: {more} more runs")
    for folds in sorted({found.folds for found in study.configurations}):
        peers = [found for found in study.configurations if found.folds == folds]
        run = {row.fold for row in study.rows if row.folds == folds}
        if len(run) < folds:
            absent = ", ".join(str(fold) for fold in range(1, folds + 1) if fold not in run)
            sentences.append(f"of {folds} folds, not run: {absent}")
        for cohort in study.cohorts:
            groups = {found: study.rows_of(found, cohort) for found in peers}
            without = [found.label for found, rows in groups.items() if not rows]
            if len(without) == len(groups):
                continue
            if without:
                sentences.append(f"{_where(cohort, folds, study)}, not scored: {'; '.join(without)}")
            whole = {_scan(row) for rows in groups.values() for row in rows}
            for found, rows in groups.items():
                sentences += _lacking(found, rows, whole, _where(cohort, folds, study))
    return sentences


def _lacking(
    found: Configuration, rows: Iterable[Row], whole: set[tuple[int, str, str]], where: str
) -> list[str]:
    of_seed: dict[int, set[tuple[int, str, str]]] = {}
    for row in rows:
        of_seed.setdefault(row.seed, set()).add(_scan(row))
    sentences = []
    for seed, have in sorted(of_seed.items()):
        lacking = sorted(whole - have)
        folds = {fold for fold, _, _ in have}
        models = sorted({fold for fold, _, _ in lacking} - folds)
        told = [f"all of fold {fold}" for fold in models]
        scans = [f"{patient}/{scan} (fold {fold})" for fold, patient, scan in lacking if fold in folds]
        told += scans[:NAMED]
        if len(scans) > NAMED:
            told.append(f"{len(scans) - NAMED} more")
        if told:
            sentences.append(f"{where}, {found.label}, seed {seed} lacks {'; '.join(told)}")
    return sentences


def _scan(row: Row) -> tuple[int, str, str]:
    return row.fold, row.patient, row.scan


def _where(cohort: str, folds: int, study: StudyResults) -> str:
    name = cohort_name(cohort)
    return name if folds == study.folds else f"{name}, k = {folds}"
