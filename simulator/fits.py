"""Fits of a cohort: made once, stored, read by every later step (DESIGN 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.dynamics.fit import PairFit
from simulator.dynamics.series_fit import SeriesFit
from simulator.series import T0, transitions_between
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, ReadError
from standard_space.files import read_own_json, write_json
from standard_space.version import lungcast_version

SCHEMA = 2
CLAMPED_SHARE_TOLD = 0.05
LUNG_CHANGE_TOLD = 0.05


@dataclass(frozen=True)
class StoredFit:
    """The dynamics that lead to one scan: fitted between `from_scan` ("t0" for Y_t0) and `to_scan`."""

    patient: str
    from_scan: str
    to_scan: str
    from_sha256: str | None
    to_sha256: str
    transitions: int
    lung_volume_ratio: float | None
    clamped_low: int
    clamped_high: int
    voxel_volume_ml: float
    fit: PairFit

    @property
    def name(self) -> str:
        """Patient and pair, for messages."""
        return f"{self.patient} {self.from_scan}>{self.to_scan}"

    def notes(self) -> list[str]:
        """What a reader should know, problems first."""
        lines = list(self.fit.notes)
        annotated = float(self.fit.observed.sum()) + self.clamped_low
        if self.clamped_low > CLAMPED_SHARE_TOLD * annotated:
            lines.append(
                f"{self.clamped_low / annotated:.0%} of the annotated voxels of {self.to_scan} lie below a signal "
                "of -0.15 and are left out of the fit"
            )
        ratio = self.lung_volume_ratio
        if ratio is not None and abs(ratio - 1.0) > LUNG_CHANGE_TOLD:
            lines.append(
                f"the lungs changed to {ratio:.0%} of their volume (another breath?), which counts as change of "
                "the infection"
            )
        return lines


@dataclass(frozen=True)
class StoredSeries:
    """One W for a patient's observed scans, in the order of their days; Y_t0 is no observation."""

    patient: str
    scans: list[str]
    sha256: list[str]
    fit: SeriesFit


@dataclass
class CohortFits:
    """All fits of a cohort, and what could not be fitted (by scan) or was left out.

    `joint` holds a joint fit of every patient with at least two observed pairs, where it was asked for.
    """

    grid: int
    loss: str
    intervals: str = "wald"
    fits: list[StoredFit] = field(default_factory=list)
    joint: list[StoredSeries] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def of(self, entry: Entry) -> StoredFit:
        """The fit whose dynamics run on from an observed scan.

        Raises
        ------
        DataError
            When there is none, or it was made from another version of the scan.
        """
        for stored in self.fits:
            if stored.patient == entry.patient and stored.to_scan == entry.scan:
                if stored.to_sha256 != entry.content_sha256:
                    raise DataError(
                        "the fit was made from another version of this scan",
                        where=entry.name,
                        remedy="run `lungcast fit` again on this cohort",
                    )
                return stored
        reason = self.failures.get(entry.name) or self.skipped.get(entry.name)
        raise DataError(
            f"there is no fit for this scan{f': {reason}' if reason else ''}",
            where=entry.name,
            remedy=None if reason else "run `lungcast fit` on this cohort",
        )

    def check(self, cohort: Cohort) -> None:
        """Refuse fits of another cohort, or of scans whose days or earlier scans have changed since.

        Raises
        ------
        DataError
        """
        entries = {entry.name: entry for entry in cohort.entries if not entry.synthetic}
        if self.fits and not any(f"{stored.patient}/{stored.to_scan}" in entries for stored in self.fits):
            raise DataError(
                "the fits belong to another cohort",
                where=cohort.folder,
                got=f"fits of {self.fits[0].patient}",
                remedy="run `lungcast fit` on this cohort",
            )
        for stored in self.fits:
            before = entries.get(f"{stored.patient}/{stored.from_scan}")
            after = entries.get(f"{stored.patient}/{stored.to_scan}")
            if stored.from_scan == T0 or before is None or after is None:
                continue
            same = before.content_sha256 == stored.from_sha256
            if not same or transitions_between(before.day, after.day) != stored.transitions:
                raise DataError(
                    f"the fit was made with {'other days' if same else 'another version of the earlier scan'}",
                    where=stored.name,
                    remedy="run `lungcast fit` again on this cohort",
                )

    def save(self, path: str | Path) -> None:
        """Write the fits as JSON, atomically."""
        content = {
            "lungcast": "fits",
            "schema": SCHEMA,
            "lungcast_version": lungcast_version(),
            "grid": self.grid,
            "loss": self.loss,
            "intervals": self.intervals,
            "fits": [_to_json(stored) for stored in self.fits],
            "joint": [_to_json(stored) for stored in self.joint],
            "failures": self.failures,
            "skipped": self.skipped,
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> CohortFits:
        """Read stored fits.

        Raises
        ------
        ReadError
            When the file is missing, damaged, foreign, or of another schema version.
        """
        content = read_own_json(path, "fits", SCHEMA, "lungcast fit")
        try:
            return cls(
                grid=int(content["grid"]),
                loss=str(content["loss"]),
                intervals=str(content["intervals"]),
                fits=[_from_json(item) for item in content["fits"]],
                joint=[_series_from_json(item) for item in content["joint"]],
                failures=dict(content["failures"]),
                skipped=dict(content["skipped"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ReadError(f"the fits file is damaged ({error})", where=path) from None


def _to_json(stored: StoredFit | StoredSeries) -> dict[str, Any]:
    content = {name: getattr(stored, name) for name in stored.__dataclass_fields__ if name != "fit"}
    return {**content, "fit": stored.fit.to_json()}


def _from_json(content: dict[str, Any]) -> StoredFit:
    values = dict(content)
    fit = PairFit.from_json(values.pop("fit"))
    return StoredFit(fit=fit, **values)


def _series_from_json(content: dict[str, Any]) -> StoredSeries:
    values = dict(content)
    fit = SeriesFit.from_json(values.pop("fit"))
    return StoredSeries(fit=fit, **values)
