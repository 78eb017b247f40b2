"""No head is on two sides, whatever the size of the study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from experiments.kit.simulation import PlannedScan
from experiments.table2.design import (
    DOMAINS,
    FEW_TRAINING,
    FEW_VALIDATION,
    LABEL_MAPS,
    NEW,
    PRESETS,
    TEST,
    Anatomies,
    Counts,
    check_sides,
    plan_cohort,
)


def of_part(planned: tuple[PlannedScan, ...], domain: str, part: str) -> tuple[PlannedScan, ...]:
    return tuple(scan for scan in planned if (scan.domain, scan.part) == (domain, part))


LEARNT_FROM = {f"head_{number:02d}" for number in range(1, 11)}


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_no_anatomy_is_tested_and_learnt_from(preset):
    plans = plan_cohort(preset.counts, preset.anatomies, preset.seed)
    tested = {plan.anatomy for plan in plans if plan.part == TEST}
    others = {plan.anatomy for plan in plans if plan.part != TEST}
    assert tested
    assert not tested & others
    assert others <= LEARNT_FROM
    check_sides(plans)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_what_is_learnt_from_does_not_decide(preset):
    plans = plan_cohort(preset.counts, preset.anatomies, preset.seed)
    for domain in NEW:
        halves = [
            {plan.anatomy for plan in of_part(plans, domain, part)}
            for part in (FEW_TRAINING, FEW_VALIDATION)
        ]
        assert not halves[0] & halves[1]


def test_a_head_on_both_sides_is_refused():
    overlapping = Anatomies(("head_01",), ("head_02",), ("head_01",))
    with pytest.raises(ValueError, match="on both sides, test and training: head_01"):
        plan_cohort(Counts(1, 1, 1, 1, 1), overlapping, 0)


def test_every_scan_has_a_deformation_of_its_own():
    plans = plan_cohort(Counts(), LABEL_MAPS, 0)
    assert len({plan.seed for plan in plans}) == len(plans) == len({p.name for p in plans})


def test_the_counts_are_the_papers():
    plans = plan_cohort(Counts(), LABEL_MAPS, 0)
    training = [len(of_part(plans, domain, "training")) for domain in DOMAINS]
    assert training == [30, 30, 30, 20, 20]
    assert [len(of_part(plans, domain, TEST)) for domain in DOMAINS] == [20] * 5


def test_fewer_labelled_cases_are_the_first_of_more():
    few = of_part(plan_cohort(Counts(few=2), LABEL_MAPS, 0), "D4", FEW_TRAINING)
    more = of_part(plan_cohort(Counts(few=4), LABEL_MAPS, 0), "D4", FEW_TRAINING)
    assert few == more[:2]


def test_another_seed_gives_other_scans_of_the_same_heads():
    one, other = (plan_cohort(Counts(), LABEL_MAPS, seed) for seed in (0, 1))
    assert [plan.seed for plan in one] != [plan.seed for plan in other]
    assert [replace(plan, seed=0) for plan in one] == [replace(plan, seed=0) for plan in other]
