"""The population file: mean and spread of W over the patients of a cohort, saved and read (DESIGN 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.population import Population, summarise
from simulator.fits import CohortFits
from simulator.series import T0
from standard_space.errors import DataError, ReadError
from standard_space.files import read_own_json, write_json
from standard_space.version import lungcast_version

SCHEMA = 1


def population_of(fits: CohortFits) -> Population:
    """Population of a cohort, one estimate per patient.

    A patient's joint fit counts where there is one, else the last observed pair, else the pair with Y_t0, whose
    beginning is assumed and not observed (the population says how many patients came in that way).

    Raises
    ------
    DataError
        When fewer than three patients were fitted.
    """
    estimates: dict[str, tuple[TransitionParameters, NDArray[np.float64]]] = {}
    assumed: set[str] = set()
    for stored in fits.fits:
        if stored.from_scan != T0 or stored.patient not in estimates:
            estimates[stored.patient] = (stored.fit.parameters, stored.fit.covariance)
            (assumed.add if stored.from_scan == T0 else assumed.discard)(stored.patient)
    for series in fits.joint:
        estimates[series.patient] = (series.fit.parameters, series.fit.covariance)
        assumed.discard(series.patient)
    try:
        population = summarise(list(estimates.values()))
    except DynamicsError as error:
        raise DataError(str(error), remedy="fit a cohort of more patients") from None
    if assumed:
        population.notes.insert(
            0,
            f"{len(assumed)} of {len(estimates)} patients have one scan only: their W leads from Y_t0, an assumed "
            "beginning three days earlier",
        )
    return population


def save_population(population: Population, fits: CohortFits, path: str | Path) -> None:
    """Write a population as JSON, atomically; it names no patient."""
    write_json(
        path,
        {
            "lungcast": "population",
            "schema": SCHEMA,
            "lungcast_version": lungcast_version(),
            "grid": fits.grid,
            "loss": fits.loss,
            "population": population.to_json(),
        },
    )


def load_population(path: str | Path) -> Population:
    """Read a stored population.

    Raises
    ------
    ReadError
        When the file is missing, damaged, foreign, or of another schema version.
    """
    content = read_own_json(path, "population", SCHEMA, "lungcast fit --population")
    try:
        return Population.from_json(content["population"])
    except (KeyError, TypeError, AttributeError, DynamicsError) as error:
        raise ReadError(f"the population file is damaged ({error})", where=path) from None
