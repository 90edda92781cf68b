"""What a study trains: every arm once, all of them alike but for what is compared; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monai")

from segmentation.methods import METHODS, THREE_WAY
from segmentation.study.plan import OFFSETS_MM, Arm, StudyPlan
from segmentation.study.records import canonical_variant
from segmentation.study.settings import parse_settings
from standard_space.errors import UsageError
from standard_space.files import sha256_of

SETTINGS = {"": {"steps": 20, "width": 2}}


def plan_of(*methods: str, ratios: tuple[float, ...] = (0.0, 50.0, 200.0, 400.0), **given: Any) -> StudyPlan:
    return StudyPlan(methods or (THREE_WAY,), ratios, **{"settings": SETTINGS, **given})


def arms(plan: StudyPlan) -> set[tuple[str, str, float, str]]:
    """Of a plan, each once."""
    listed = [(arm.method, arm.generator, arm.ratio, arm.variant) for arm in plan.arms]
    assert len(set(listed)) == len(listed)
    assert len({arm.name for arm in plan.arms}) == len(listed)
    for arm in plan.arms:
        assert (arm.generator == "none") == (arm.ratio == 0)
        assert canonical_variant(arm.variant) == arm.variant
        assert "/" not in arm.name
    return set(listed)


def ratio_arms(*methods: str) -> set[tuple[str, str, float, str]]:
    ratios = ((0.0, "none"), (50.0, "offline"), (200.0, "offline"), (400.0, "offline"))
    return {(method, kind, ratio, "") for method in methods for ratio, kind in ratios}


def test_every_method_is_trained_at_every_ratio() -> None:
    assert arms(plan_of(THREE_WAY, "unet2d", "mueller")) == ratio_arms(THREE_WAY, "unet2d", "mueller")
    assert arms(plan_of(*METHODS, ratios=(0.0,), settings={})) == {
        (name, "none", 0.0, "") for name in METHODS
    }


def test_generators_are_compared_with_the_first_method_alone() -> None:
    plan = plan_of(
        THREE_WAY, "unet2d", ratios=(0.0, 200.0), generators=("offline", "on-the-fly", "copy-paste")
    )
    base = {(m, g, r, "") for m in (THREE_WAY, "unet2d") for g, r in (("none", 0.0), ("offline", 200.0))}
    more = {(THREE_WAY, "on-the-fly", 200.0, ""), (THREE_WAY, "copy-paste", 200.0, "")}
    assert arms(plan) == base | more
    # The reference is there even where the ratios have it not.
    lonely = plan_of(ratios=(50.0,), generators=("ellipsoids", "offline"))
    assert arms(lonely) == {
        (THREE_WAY, "ellipsoids", 50.0, ""),
        (THREE_WAY, "none", 0.0, ""),
        (THREE_WAY, "ellipsoids", 200.0, ""),
        (THREE_WAY, "offline", 200.0, ""),
    }


MAIN = (THREE_WAY, "offline", 200.0)


@pytest.mark.parametrize(
    ("removal", "more"),
    [
        ("normalise", {(*MAIN, "normalise=off")}),
        ("combine", set()),
        ("augment", set()),
        (
            "vary",
            {(*MAIN, "vary=off"), ("mueller", "none", 0.0, "vary=off")},
        ),
        ("preprocess", {("mueller", "none", 0.0, "preprocess=off")}),
    ],
)
def test_what_is_taken_away_has_its_counterpart(removal: str, more: set[tuple[str, str, float, str]]) -> None:
    plan = plan_of(THREE_WAY, "mueller", without=(removal,))
    assert arms(plan) == ratio_arms(THREE_WAY, "mueller") | more
    for method, generator, ratio, _ in more:
        assert (method, generator, ratio, "") in arms(plan)
    sparse = plan_of(THREE_WAY, "mueller", ratios=(50.0,), without=(removal,))
    for method, generator, ratio, _ in arms(sparse):
        assert (method, generator, ratio, "") in arms(sparse)
    views = [arm for arm in plan.arms if plan.scored_views(arm)]
    assert views == ([Arm(*MAIN)] if removal == "combine" else [])


def test_without_synthetic_scans_is_an_arm_even_where_no_ratio_is_zero() -> None:
    assert (THREE_WAY, "none", 0.0, "") in arms(plan_of(ratios=(100.0,), without=("augment",)))


def test_muellers_table_has_both_off_as_well() -> None:
    found = arms(plan_of("mueller", ratios=(0.0,), without=("vary", "preprocess")))
    assert found == {
        ("mueller", "none", 0.0, variant)
        for variant in ("", "vary=off", "preprocess=off", "preprocess=off;vary=off")
    }


def test_choices_are_of_the_three_way_method_at_the_main_ratio() -> None:
    plan = plan_of("unet2d", THREE_WAY, choices=("offsets", "rules"))
    offsets = {(*MAIN, f"offsets={name}") for name in OFFSETS_MM}
    assert arms(plan) == ratio_arms("unet2d", THREE_WAY) | offsets
    assert [arm for arm in plan.arms if plan.scored_rules(arm)] == [Arm(*MAIN)]
    for name, offsets_mm in OFFSETS_MM.items():
        assert plan.options(Arm(*MAIN, f"offsets={name}"), 0).slice_offsets_mm == offsets_mm
    assert not any(plan_of().scored_rules(arm) for arm in plan_of().arms)


@pytest.mark.parametrize(
    ("ratios", "main"),
    [((0.0, 50.0, 200.0, 400.0), 200.0), ((0.0, 100.0), 100.0), ((300.0, 400.0), 300.0), ((0.0,), 0.0)],
)
def test_the_main_ratio_is_the_largest_up_to_200(ratios: tuple[float, ...], main: float) -> None:
    assert plan_of(ratios=ratios).main_ratio == main


def test_arms_differ_in_what_is_compared_and_in_nothing_else() -> None:
    plan = plan_of(without=("normalise", "vary"), choices=("offsets",))
    whole = plan.options(Arm(*MAIN), 3)
    assert whole.seed == 3
    for arm in plan.arms:
        options = plan.options(arm, 3)
        share = arm.ratio / (100.0 + arm.ratio)
        same = replace(
            options,
            synthetic_share=whole.synthetic_share,
            on_the_fly_share=whole.on_the_fly_share,
            own_window=False,
            vary=True,
            slice_offsets_mm=None,
        )
        assert same == whole
        # As if originals and synthetic scans lay in one pool.
        assert options.synthetic_share == options.on_the_fly_share == pytest.approx(share)
        assert options.own_window == ("normalise" in arm.variant)
        assert options.vary == ("vary" not in arm.variant)
    assert plan.options(Arm(*MAIN), 3).synthetic_share == pytest.approx(2 / 3)
    assert plan_of(synthetic_share=0.5).options(Arm(*MAIN), 0).synthetic_share == 0.5


def test_the_same_steps_for_every_method_and_each_its_own_settings() -> None:
    settings = {"": {"steps": 30}, "unet2d": {"width": 4}, "mueller": {"steps": 7}}
    plan = plan_of(THREE_WAY, "unet2d", "mueller", settings=settings)
    taken = {arm.method: plan.options(arm, 0) for arm in plan.arms}
    assert {name: options.steps for name, options in taken.items()} == {
        THREE_WAY: 30,
        "unet2d": 30,
        "mueller": 7,
    }
    assert [taken[name].width for name in (THREE_WAY, "unet2d", "mueller")] == [16, 4, 32]
    assert plan_of(settings={}).options(Arm(*MAIN), 0).steps == 2000


def test_runs_come_fold_by_fold_and_none_twice() -> None:
    plan = plan_of(ratios=(0.0, 200.0), folds=(2, 3), seeds=(0, 1))
    runs = plan.runs()
    assert len(runs) == len(set(runs)) == len({run.name for run in runs}) == 2 * (2 + 3) * 2
    assert [(run.seed, run.folds, run.fold) for run in runs[::2]] == [
        (seed, folds, fold) for seed in (0, 1) for folds in (2, 3) for fold in range(1, folds + 1)
    ]
    assert [run.arm.ratio for run in runs] == [0.0, 200.0] * (len(runs) // 2)
    some = plan_of(ratios=(0.0, 200.0), folds=(3,), fold_subset=(1, 3)).runs()
    assert [run.fold for run in some] == [1, 1, 3, 3]


def test_settings_are_read() -> None:
    texts = ["width=8", "unet3d.batch-size=2", "vary=false", "mueller.learning_rate=1e-3", "rule=mean"]
    assert parse_settings([*texts, "width=4"]) == {
        "": {"width": 4, "vary": False, "rule": "mean"},
        "unet3d": {"batch_size": 2},
        "mueller": {"learning_rate": 0.001},
    }
    assert parse_settings([]) == {}
    for wrong in ("width", "=8", "unet3d.=8", ""):
        with pytest.raises(UsageError, match="not a setting"):
            parse_settings([wrong])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ()}, "methods of a study must be named"),
        ({"methods": (THREE_WAY, THREE_WAY)}, "each once"),
        ({"methods": ("heart",)}, "no such method"),
        ({"ratios": ()}, "ratios of a study must be named"),
        ({"ratios": (50.0, 50.0)}, "each once"),
        ({"ratios": (-1.0,)}, "negative or not finite"),
        ({"ratios": (float("nan"),)}, "negative or not finite"),
        ({"ratios": (float("inf"),)}, "negative or not finite"),
        ({"folds": ()}, "folds of a study must be named"),
        ({"folds": (2, 2)}, "each once"),
        ({"seeds": ()}, "seeds of a study must be named"),
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": (-1,)}, "seed"),
        ({"generators": ()}, "generators of a study must be named"),
        ({"generators": ("none",)}, "no such generator"),
        ({"generators": ("offline", "gan")}, "no such generator.*gan"),
        ({"generators": ("offline", "ellipsoids"), "generator_ratio": 0.0}, "ratio"),
        ({"without": ("hope",)}, "no such removal.*hope"),
        ({"without": ("preprocess",)}, "no method of the study has this part"),
        ({"methods": ("unet2d",), "without": ("normalise",)}, "no method of the study has this part"),
        ({"methods": ("unet2d",), "without": ("combine",)}, "no method of the study has this part"),
        ({"generators": ("on-the-fly",), "without": ("normalise",)}, "made on the fly are normalised"),
        ({"choices": ("wine",)}, "no such choice.*wine"),
        ({"methods": ("unet2d",), "choices": ("rules",)}, "choices of the three-way method"),
        ({"fold_subset": (0,)}, "no such fold"),
        ({"fold_subset": (6,)}, "no such fold"),
        ({"synthetic_share": 1.5}, "0..1"),
        ({"settings": {"heart": {"width": 2}}}, "no such method"),
        ({"settings": {"": {"heart": 2}}}, "heart"),
        ({"settings": {"": {"width": "wide"}}}, "width"),
        ({"settings": {"": {"width": -2}}}, "width must be above zero"),
        ({"settings": {"": {"steps": "many"}}}, "steps"),
        ({"settings": {"": {"vary": "perhaps"}}}, "vary"),
        ({"settings": {"": {"method": "unet2d"}}}, "method"),
        ({"settings": {THREE_WAY: {"slice_offsets_mm": "near"}}}, "slice.offsets"),
        ({"settings": {"": {"seed": 3}}}, "seed"),
        ({"settings": {"": {"synthetic_share": 0.1}}}, "synthetic.share"),
        ({"settings": {"": {"target": "lungs"}}}, "target"),
        ({"methods": ("unet2d",), "settings": {"unet2d": {"rule": "sum>t"}}}, "no such rule"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        StudyPlan(**{"methods": (THREE_WAY,), "ratios": (0.0, 200.0), "settings": SETTINGS, **given})
    assert "\n" not in str(caught.value)


def test_a_plan_is_told_in_plain_values_and_tells_plans_apart() -> None:
    plans = [
        plan_of(),
        plan_of(seeds=(1,)),
        plan_of(without=("augment",)),
        plan_of(choices=("rules",)),
        plan_of(settings={"": {"steps": 21, "width": 2}}),
        plan_of(synthetic_share=0.5),
        plan_of(generators=("ellipsoids",)),
        plan_of(folds=(4,)),
        plan_of(fold_subset=(1,)),
    ]
    told = [plan.to_json() for plan in plans]
    assert all(told.count(one) == 1 for one in told)
    assert plan_of().to_json() == told[0]


def test_variants_and_other_generators_run_at_the_largest_number_of_folds_only() -> None:
    plan = plan_of(ratios=(0.0, 200.0), folds=(2, 3), without=("normalise",), choices=("offsets",))
    of = {folds: {run.arm.variant for run in plan.runs() if run.folds == folds} for folds in (2, 3)}
    assert of == {2: {""}, 3: {"", "normalise=off", "offsets=narrow", "offsets=single"}}


def test_a_file_is_known_by_its_content_and_never_by_its_path(tmp_path: Path) -> None:
    weights = tmp_path / "jane_doe.pt"
    weights.write_bytes(b"weights")
    settings = {"transfer": {"encoder_weights": str(weights)}}
    told = StudyPlan(("transfer",), (0.0,), folds=(2,), settings=settings).to_json()
    assert "jane_doe" not in str(told)
    assert told["options"]["transfer"]["encoder_weights"] == sha256_of(weights)
