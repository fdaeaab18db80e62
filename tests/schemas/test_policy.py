"""A policy decides by its rules alone, at the precision of the columns, and says where it is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.errors import ConfigError
from schemas.policy import Policy, Rule, decide, metric_columns, parse_policy
from schemas.tables import TABLES
from schemas.where import parse_where
from tests.lake_rows import random_rows

BUILT_IN = sorted(Path(schemas.__file__).parent.glob("policies/*.yaml"))


def policy(*rules: dict, **facts: str) -> Policy:
    return Policy(name="p", rules=rules, **facts)


def columns(persons: list, oks: list, **more: pa.Array) -> pa.Table:
    return pa.table({"persons": pa.array(persons, pa.int32()), "oks": pa.array(oks, pa.float32()), **more})


def test_first_and_alone_are_counted_apart():
    rows = columns([1, 5, 0, 2, 9], [0.9, 0.9, 0.1, 0.2, 0.1])
    decision = decide(
        policy({"column": "persons", "min": 1, "max": 4}, {"column": "oks", "min": 0.8}),
        rows,
    )
    assert decision.keep.tolist() == [True, False, False, False, False]
    assert decision.first.tolist() == [-1, 0, 0, 1, 0]
    assert decision.alone.tolist() == [3, 3]


@pytest.mark.parametrize("missing", ["reject", "keep"])
def test_null_does_what_the_rule_says(missing):
    decision = decide(policy({"column": "oks", "min": 0.5, "missing": missing}), columns([1, 1], [None, 0.6]))
    assert decision.keep.tolist() == [missing == "keep", True]


def test_null_is_rejected_unless_the_rule_says_otherwise():
    assert not decide(policy({"column": "oks", "min": 0.0}), columns([1], [None])).keep.any()


@pytest.mark.parametrize("bound", [0.7, 0.8, 0.1, 1 / 3])
def test_bounds_are_inclusive_at_the_columns_precision(bound):
    at = np.float32(bound)
    below, above = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1))
    rows = columns([1] * 3, [below, at, above])

    def kept(**rule: object) -> list[bool]:
        return decide(policy({"column": "oks", **rule}), rows).keep.tolist()

    assert kept(min=bound) == [False, True, True]
    assert kept(max=bound) == [True, True, False]
    assert kept(equals=bound) == [False, True, False]
    assert kept(one_of=[bound, 2.0]) == [False, True, False]


def test_no_rules_keep_all_and_no_rows_are_fine():
    assert decide(policy(), columns([1, 2], [None, 0.1])).keep.all()
    assert len(decide(policy({"column": "oks", "min": 0.5}), columns([], [])).keep) == 0


_number = st.floats(-2, 6, width=32)
_rule = st.one_of(
    st.fixed_dictionaries(
        {"column": st.just("oks")},
        optional={
            "min": _number,
            "equals": st.sampled_from([0.0, 0.5, 0.7, 1.0]),
            "one_of": st.lists(st.sampled_from([0.0, 0.5, 0.7]), min_size=1, max_size=3),
            "missing": st.sampled_from(["reject", "keep"]),
        },
    ),
    st.fixed_dictionaries({"column": st.just("persons"), "min": st.integers(0, 3), "max": st.integers(3, 5)}),
).filter(lambda r: {"min", "max", "equals", "one_of"} & set(r))


@given(
    st.lists(_rule, max_size=4),
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([None, 0.0, 0.5, 0.7, 0.3, 1.0])), max_size=30),
)
def test_decisions_equal_plain_python_and_the_rules_own_text(rules, data):
    rows = columns([p for p, _ in data], [o for _, o in data])
    made = policy(*rules)
    decision = decide(made, rows)
    for i, row in enumerate(rows.to_pylist()):
        failing = [k for k, rule in enumerate(rules) if not _passes(rule, row[rule["column"]])]
        assert decision.first[i] == (failing[0] if failing else -1)
    schema = TABLES["metrics_keypoints"].schema
    for rule, alone in zip(made.rules, decision.alone, strict=True):
        kept = pads.dataset(rows).to_table(filter=parse_where(rule.text, schema)).num_rows
        assert kept == rows.num_rows - alone


def _passes(rule: dict, value: float | None) -> bool:
    if value is None:
        return rule.get("missing") == "keep"
    value = np.float32(value)
    return (
        value >= np.float32(rule.get("min", -np.inf))
        and value <= np.float32(rule.get("max", np.inf))
        and ("equals" not in rule or value == np.float32(rule["equals"]))
        and ("one_of" not in rule or value in np.array(rule["one_of"], np.float32))
    )


def test_the_fingerprint_covers_what_decides_and_nothing_else():
    base = {"column": "persons", "min": 1}, {"column": "oks", "min": 0.8}
    one = policy(*base).fingerprint.value
    same = [
        policy(*base, description="words"),
        Policy(name="another", rules=base),
        policy(base[0] | {"reason": "words"}, base[1]),
        policy(base[0] | {"missing": "reject"}, base[1]),
        policy(base[0] | {"min": 1.0}, base[1] | {"min": float(np.float32(0.8))}),
    ]
    assert {p.fingerprint.value for p in same} == {one}
    other = [
        policy(base[1], base[0]),
        policy(base[0]),
        policy(base[0], base[1] | {"min": 0.81}),
        policy(base[0], base[1] | {"missing": "keep"}),
        policy(base[0] | {"max": 4}, base[1]),
        policy({"column": "persons", "max": 1}, base[1]),
        policy({"column": "persons", "equals": 1}, base[1]),
        policy({"column": "persons", "one_of": [1]}, base[1]),
        policy({"column": "person_score", "min": 1}, base[1]),
    ]
    values = {p.fingerprint.value for p in other}
    assert len(values) == len(other)
    assert one not in values


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda p: p.stem)
def test_built_in_policies_are_named_as_their_file(path):
    assert parse_policy(path.read_text(), path.name).name == path.stem


def test_the_built_in_policies_hold_what_the_paper_says():
    strict, lenient = (parse_policy(p.read_text(), p.name) for p in reversed(BUILT_IN))
    assert [r.text for r in strict.rules] == ["1 <= persons <= 4", "oks >= 0.8"]
    assert [r.text for r in lenient.rules] == ["oks >= 0.5"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "column: ok\n    min: 1",
            "line 3: rules[0].column: no column that a rule can read is called 'ok'; did you mean oks?",
        ),
        ("column: oks\n    mni: 1", "line 4: rules[0].mni: unknown key; did you mean min?"),
        ("column: oks", "line 3: rules[0]: the rule on oks has no bound"),
        ("column: oks\n    min: .inf", "line 4: rules[0].min: input should be a finite number"),
        ("column: oks\n    min: .nan", "line 4: rules[0].min: input should be a finite number"),
        ("column: oks\n    min: 1e300", "line 3: rules[0]: min of oks is 1e+300, which float cannot hold"),
        ("column: oks\n    min: yes", "line 4: rules[0].min: is true; a number belongs here"),
        (
            "column: oks\n    equals: high",
            "line 3: rules[0]: equals of oks is 'high', but the column holds numbers",
        ),
        ("column: oks\n    one_of: []", "line 4: rules[0].one_of: Tuple should have at least 1 item"),
        (
            "column: oks\n    min: 1\n    max: 0",
            "line 3: rules[0]: the rule on oks has min 1.0 above max 0.0",
        ),
        (
            "column: oks\n    min: 1\n    missing: drop",
            "line 5: rules[0].missing: input should be 'reject' or",
        ),
        (
            "column: persons\n    min: 1.5",
            "line 3: rules[0]: min of persons is 1.5, but the column holds whole",
        ),
        ("column: persons\n    equals: 3e9", "line 3: rules[0]: equals of persons is '3e9'"),
        (
            "column: persons\n    max: 3.0e+9",
            "line 3: rules[0]: max of persons is 3000000000.0, but the column",
        ),
        (
            "column: keypoints\n    min: 1",
            "line 3: rules[0].column: no column that a rule can read is called 'keypoints'",
        ),
        (
            "column: image_id\n    min: 1",
            "line 3: rules[0].column: no column that a rule can read is called 'image_id'",
        ),
    ],
)
def test_a_wrong_policy_is_refused_with_line_and_key(rule, message):
    with pytest.raises(ConfigError) as caught:
        parse_policy(f"name: p\nrules:\n  - {rule}\n", "p.yaml")
    assert str(caught.value).startswith(f"p.yaml {message}")


def test_a_number_in_exponent_form_is_a_number():
    # YAML 1.1 reads 1e-1 as text.
    made = parse_policy("name: p\nrules: [{column: oks, min: 5e-1}]", "p.yaml")
    assert made.rules == (Rule(column="oks", min=0.5),)


def test_a_policy_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        policy().name = "other"


def test_metric_columns_are_single_values_of_metric_tables_and_unambiguous():
    known = metric_columns()
    assert {"oks", "persons", "person_score"} <= set(known)
    names = [
        f.name
        for t, spec in TABLES.items()
        if t.startswith("metrics_")
        for f in spec.schema
        if f.name not in {*spec.key, "fingerprint"}
    ]
    assert len(names) == len(set(names))


def test_random_rows_are_decided_the_same_in_any_order():
    rows = random_rows("metrics_keypoints", 500, 3)
    made = policy({"column": "persons", "max": 2**30}, {"column": "oks", "min": 0.3, "missing": "keep"})
    turned = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(
        decide(made, rows.take(pa.array(turned))).first, decide(made, rows).first[turned]
    )
