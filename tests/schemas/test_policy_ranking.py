"""Rankings and caps keep what SQL's window functions keep, in any order of the rows."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from schemas.policy import Policy, decide


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    rng = np.random.default_rng(4)
    n = 3000
    return pa.table(
        {
            "image_id": rng.integers(-(2**63), 2**63 - 1, n),
            # Few different scores, so that ids must break ties.
            "oks": pa.array(rng.integers(0, 20, n) / np.float32(20), pa.float32(), mask=rng.random(n) < 0.1),
            "persons": pa.array(rng.integers(0, 4, n), pa.int32()),
            "source": rng.choice(["amass", "demo"], n),
            "sequence": rng.choice(["walk", "run", "sit"], n, p=[0.8, 0.19, 0.01]),
            "top_color": pa.array(rng.choice(["red", "blue"], n), mask=rng.random(n) < 0.3),
        }
    )


def ids(rows: pa.Table, *rules: dict) -> set[int]:
    keep = decide(Policy(name="p", rules=rules), rows).keep
    return set(rows.column("image_id").filter(pa.array(keep)).to_pylist())


def sql(rows: pa.Table, query: str) -> set[int]:
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        return {row[0] for row in connection.execute(query).fetchall()}


_BEST = "order by oks desc, image_id"


@pytest.mark.parametrize(
    ("rules", "query"),
    [
        ([{"top": 100, "by": "oks"}], f"select image_id from rows where oks is not null {_BEST} limit 100"),
        (
            [{"top": 100, "by": "oks", "best": "lowest"}],
            "select image_id from rows where oks is not null order by oks, image_id limit 100",
        ),
        (
            [{"top": 2900, "by": "oks", "missing": "keep"}],
            "select image_id from rows order by oks desc nulls last, image_id limit 2900",
        ),
        ([{"top": 9999, "by": "oks"}], "select image_id from rows where oks is not null"),
        (
            [{"column": "persons", "equals": 1}, {"at_most": 7, "per": "persons", "by": "oks"}],
            f"select image_id from rows where persons = 1 and oks is not null {_BEST} limit 7",
        ),
        (
            [{"at_most": 40, "per": "sequence", "by": "oks"}],
            "select image_id from rows where oks is not null qualify row_number() over "
            f"(partition by source, sequence {_BEST}) <= 40",
        ),
        (
            [{"at_most": 40, "per": "top_color", "by": "oks"}],
            "select image_id from rows where oks is not null "
            f"qualify top_color is null or row_number() over (partition by top_color {_BEST}) <= 40",
        ),
        (
            [{"quantile": 0.29, "by": "oks", "per": "source", "missing": "keep"}],
            "select image_id from rows qualify row_number() over (partition by source order by oks desc "
            "nulls last, image_id) <= count(*) over (partition by source) - "
            "floor(0.29::decimal(9, 2) * count(*) over (partition by source))",
        ),
        (
            [
                {"column": "persons", "min": 1},
                {"at_most": 300, "per": "source", "by": "oks"},
                {"top": 200, "by": "persons"},
            ],
            f"with capped as (select * from rows where persons >= 1 and oks is not null qualify row_number() "
            f"over (partition by source {_BEST}) <= 300) "
            "select image_id from capped order by persons desc, image_id limit 200",
        ),
    ],
)
def test_rankings_keep_what_sql_keeps_in_any_order(rows, rules, query):
    wanted = sql(rows, query)
    assert 0 < len(wanted) < rows.num_rows
    assert ids(rows, *rules) == wanted
    turned = rows.take(pa.array(np.random.default_rng(1).permutation(rows.num_rows)))
    assert ids(turned, *rules) == wanted


def test_the_funnel_names_rankings_by_what_is_left_and_alone(rows):
    rules = [
        {"column": "persons", "min": 2},
        {"top": 500, "by": "oks"},
        {"at_most": 1, "per": "source", "by": "oks"},
    ]
    policy = Policy(name="p", rules=rules)
    decision = decide(policy, rows)
    passing = int(np.sum(rows.column("persons").to_numpy() >= 2))
    assert [rule.text for rule in policy.rules[1:]] == ["top 500 by oks", "at most 1 per source by oks"]
    assert np.bincount(decision.first + 1).tolist() == [2, 3000 - passing, passing - 500, 498]
    assert decision.alone.tolist() == [3000 - passing, 2500, 2998]


def test_a_share_is_counted_in_decimals():
    rows = pa.table({"image_id": np.arange(100), "oks": pa.array(np.arange(100) / 100, pa.float32())})
    for percent in range(1, 100):
        assert len(ids(rows, {"quantile": percent / 100, "by": "oks"})) == 100 - percent


def test_no_rows_and_no_scores_are_fine():
    nulls = pa.table({"image_id": [1], "oks": pa.nulls(1, pa.float32()), "source": ["a"]})
    for rule in ({"top": 3, "by": "oks"}, {"at_most": 3, "per": "source", "by": "oks"}):
        assert ids(nulls.slice(1), rule) == set()
        assert ids(nulls, rule) == set()
        assert ids(nulls, rule | {"missing": "keep"}) == {1}
