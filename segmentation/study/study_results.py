"""The results of a study, and which of its configurations stand in which comparison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from segmentation.study.records import GENERATORS, OWN, Configuration, CostRow, Row
from segmentation.study.results_file import read_costs, read_results
from standard_space.errors import DataError, ReadError, UsageError

OURS = ("offline", "on-the-fly")
"""The generators that are lungcast's own."""

USUAL_RATIO = 200.0
"""The paper's ratio of synthetic to real scans, %."""

RESULTS, COSTS, ABOUT = "results.csv", "costs.csv", "study.json"


class Level(NamedTuple):
    """How much a method was given to train on: a generator and a ratio in %."""

    generator: str
    ratio: float

    @property
    def label(self) -> str:
        """In words: "0 %" or "offline 200 %"."""
        return Configuration("", self.generator, self.ratio, "", 1).level


NOTHING = Level("none", 0.0)


@dataclass(frozen=True)
class StudyResults:
    """All that was scored and measured in a study.

    Attributes
    ----------
    rows : tuple of Row
        In the order of their keys, whatever order they came in: sums of floats depend on it.
    costs : tuple of CostRow
    about : dict
        Content of study.json: what was asked and run.
    """

    rows: tuple[Row, ...]
    costs: tuple[CostRow, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=lambda row: row.key)))

    @cached_property
    def cohorts(self) -> tuple[str, ...]:
        """The study's own test patients first, then external cohorts by name."""
        return tuple(sorted({row.cohort for row in self.rows}, key=lambda name: (name != OWN, name)))

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """All that were scored, in the order they are shown in."""
        return tuple(sorted({row.configuration for row in self.rows}, key=lambda found: found.order))

    @cached_property
    def folds(self) -> int:
        """The cross-validation of the study: the number of folds that most methods share, the larger of equals.

        Raises
        ------
        DataError
            The study has no results.
        """
        methods = Counter(
            folds
            for _, folds in {
                (found.method, found.folds) for found in self.configurations if not found.variant
            }
        ) or Counter(found.folds for found in self.configurations)
        if not methods:
            raise DataError("the study has no results")
        return max(methods, key=lambda folds: (methods[folds], folds))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods that were run as they are, in the order they are shown in."""
        whole = (found.method for found in self.configurations if self._is_whole(found))
        return tuple(dict.fromkeys(whole))

    @cached_property
    def main_level(self) -> Level | None:
        """The augmentation that methods are compared at; None when nothing was augmented.

        lungcast's own generators come before others; of those, what most methods share, then what is nearest to
        the paper's 200 %.
        """
        levels = Counter(
            Level(found.generator, found.ratio)
            for found in self.configurations
            if self._is_whole(found) and found.ratio > 0
        )
        if not levels:
            return None
        return min(
            levels,
            key=lambda level: (
                level.generator not in OURS,
                -levels[level],
                abs(level.ratio - USUAL_RATIO),
                GENERATORS.index(level.generator),
                level.ratio,
            ),
        )

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """No augmentation, and the main level where there is one."""
        return (NOTHING,) if self.main_level is None else (NOTHING, self.main_level)

    def whole(self, method: str, level: Level, folds: int | None = None) -> Configuration | None:
        """A method as it is at a level of augmentation; None when it was not run."""
        found = Configuration(method, level.generator, level.ratio, "", folds or self.folds)
        return found if found in self._by_configuration else None

    def variants(self, method: str, names: Iterable[str]) -> dict[Level, tuple[Configuration, ...]]:
        """Variants of a method made of these names only, at the study's folds, by level of augmentation."""
        allowed = set(names)
        groups: dict[Level, list[Configuration]] = {}
        for found in self.configurations:
            if (found.method, found.folds) != (method, self.folds) or not found.variant:
                continue
            if set(found.parts) <= allowed:
                groups.setdefault(Level(found.generator, found.ratio), []).append(found)
        return {level: tuple(group) for level, group in groups.items()}

    def best_level(self, groups: Mapping[Level, tuple[Configuration, ...]]) -> Level | None:
        """The level with most of something; of equals the main level, then the first."""
        if not groups:
            return None
        return max(groups, key=lambda level: (len(groups[level]), level == self.main_level))

    def rows_of(self, configuration: Configuration | None, cohort: str) -> tuple[Row, ...]:
        """Rows of a configuration on a cohort, empty where there are none."""
        found = () if configuration is None else self._by_configuration.get(configuration, ())
        return tuple(row for row in found if row.cohort == cohort)

    @cached_property
    def _by_configuration(self) -> dict[Configuration, tuple[Row, ...]]:
        groups: dict[Configuration, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.configuration, []).append(row)
        return {found: tuple(group) for found, group in groups.items()}

    def _is_whole(self, found: Configuration) -> bool:
        return not found.variant and found.folds == self.folds


def cohort_name(cohort: str) -> str:
    """A cohort in words."""
    return "own test folds" if cohort == OWN else cohort


def read_study(folder: str | Path) -> StudyResults:
    """Read results.csv, costs.csv (each may be compressed, ``.csv.gz``) and study.json of a study's folder.

    Costs and study.json may be missing; then nothing is said of them.

    Raises
    ------
    ReadError
        There are no results, or a file cannot be read.
    DataError
        A value is out of range, two rows share the key, or there is not a single result.
    UsageError
        A CSV lies there both plain and compressed.
    """
    folder = Path(folder)
    results = _find(folder, RESULTS)
    if results is None:
        raise ReadError("no results of a study", where=folder, expected=f"{RESULTS} or {RESULTS}.gz")
    costs = _find(folder, COSTS)
    rows = tuple(read_results(results))
    if not rows:
        raise DataError("the study has no results yet", where=results)
    return StudyResults(rows, () if costs is None else tuple(read_costs(costs)), _about(folder / ABOUT))


def _find(folder: Path, name: str) -> Path | None:
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(found) > 1:
        raise UsageError(
            f"{name} lies there both plain and compressed",
            where=folder,
            remedy="remove the one that is out of date",
        )
    return found[0] if found else None


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ReadError(f"the description of the study cannot be read ({error})", where=path) from None
    if not isinstance(content, dict):
        raise ReadError("not a description of a study", where=path, expected="a JSON object")
    return content
