"""`lungcast`: the group of all commands.

Modules of the commands import only click at the top; what a command needs is imported when it runs, so that
`lungcast --help` answers at once.
"""

from __future__ import annotations

import click

from cli.audit import audit
from cli.augment import augment, merge, replay
from cli.console import LungcastGroup
from cli.crossvalidate import crossvalidate
from cli.data import check, embed, info, phantom, restore
from cli.demo import demo
from cli.doctor import doctor
from cli.dynamics import fit, simulate
from cli.evaluate import evaluate
from cli.export import export
from cli.forecast import forecast
from cli.import_checkpoint import import_checkpoint
from cli.segment import segment, threshold
from cli.study import study
from cli.train import train
from cli.tune import tune
from cli.view import report, view
from standard_space.version import lungcast_version


@click.group(cls=LungcastGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lungcast_version(), prog_name="lungcast")
def main() -> None:
    """Fit how a lung infection moves between CT scans, play it on, train a three-way segmenter.

    For research, not for diagnosis. Exit codes: 0 done, 1 failed or partly failed, 2 wrong use, 130 interrupted.

    \b
    The road, in order:
      lungcast doctor                           whether everything is there to begin
      lungcast phantom DATA                     a cohort to try things on
      lungcast check MANIFEST                   every problem of every scan, first
      lungcast embed MANIFEST COHORT            scans into the standard space
      lungcast fit COHORT --json fits.json      eight parameters per pair of scans
      lungcast forecast COHORT --json f.json    how well that foretells the next scan
      lungcast augment COHORT AUG --ratio 200%  new annotated scans
      lungcast audit AUG                        what is implausible, and what gives it away
      lungcast export AUG OUT --format nnunet   files for nnU-Net, MONAI and others
      lungcast train COHORT MODEL --augmented AUG
      lungcast segment MODEL IMAGE OUT          a scan, a DICOM folder or a folder of scans
      lungcast evaluate MODEL COHORT --json scores.json
      lungcast crossvalidate COHORT OUT         every scan scored by a model that never saw its patient
      lungcast study COHORT OUT                 methods, ratios and ablations on the same folds, as tables
      lungcast view COHORT                      any of these in a browser; report --html for a colleague
    """


for command in (
    doctor,
    demo,
    phantom,
    check,
    embed,
    restore,
    info,
    fit,
    forecast,
    simulate,
    augment,
    replay,
    merge,
    audit,
    export,
    train,
    segment,
    threshold,
    tune,
    evaluate,
    crossvalidate,
    study,
    view,
    report,
    import_checkpoint,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
