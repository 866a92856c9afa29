"""Every technique on every net, alone and together: built, trained, exported, packed, unpacked."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.needs import need_extra

_PAIRS_PER_NET = 4
_TRIPLES_PER_NET = 2


def test_technique_holds_or_says_why_not(suite, net_of, model_hash, technique_and_net):
    """A third of all combinations; scripts/conformance_table.py runs every one."""
    technique_name, net_name = technique_and_net
    if suite.BY_NAME[technique_name].needs_nni:
        need_extra("nni")
    net = net_of(net_name)
    before = model_hash(net.model)
    reason = suite.run(net, suite.BY_NAME[technique_name])
    assert model_hash(net.model) == before
    assert reason == "" or len(reason) > 10


def test_pairs_and_triples_compose(suite, net_of, net_name):
    """A sample, another for each net; scripts/conformance_table.py runs every pair."""
    net, rng = net_of(net_name), random.Random(net_name)
    pairs = [pair for pair in suite.pairs() if not any(t.needs_nni for t in pair)]
    chosen = rng.sample(pairs, _PAIRS_PER_NET)
    while len(chosen) < _PAIRS_PER_NET + _TRIPLES_PER_NET:
        triple = tuple(rng.sample([t for t in suite.TECHNIQUES if not t.needs_nni], 3))
        if suite.rules_of(*triple) is not None:
            chosen.append(triple)
    for techniques in chosen:
        try:
            suite.run(net, *techniques)
        except Exception as error:  # noqa: BLE001 - whatever it is, say of which
            pytest.fail(f"{[t.name for t in techniques]} on {net_name}: {error!r}")


_EVERYTHING = {
    "pruning_ratio": [0.25, 0.5, 0.9],
    "drop_block": True,
    "shared_with": "earlier",
    "rank_ratio": [0.5, 0.1],
    "factorization": ["data_svd", "cp", "spatial", "separable"],
    "sparsity": [0.5, 0.95],
    "sparsity_pattern": ["n:4", "block:2x2"],
    "weight_bits": [8, 4, 2],
    "quantizer": ["kmeans", "power_of_two", "uniform_asymmetric"],
    "activation_bits": [8],
}


@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_random_plans_are_built_as_they_say(suite, net_of, net_name, data):
    net = net_of(net_name)
    rules = suite.SpaceRules.model_validate({"pruning": {"round_to": 1}, "rules": [_EVERYTHING]})
    built, reason = suite.build(net, rules)
    assert built is not None, reason
    space = built.space
    levels = {k.name: data.draw(st.integers(0, len(k.levels) - 1)) for k in space.knobs}
    plan = space.decode(levels)
    assert space.encode(plan) == levels
    candidate = suite.make_candidate(net, rules, plan)
    suite.check_realised(net, rules, plan, candidate)


@pytest.mark.parametrize("is_nni", [False, True])
def test_table_in_the_docs_is_what_the_suite_says(suite, net_of, zoo_names, docs_table, is_nni):
    if is_nni:
        need_extra("nni")
    techniques = [technique for technique in suite.TECHNIQUES if technique.needs_nni == is_nni]
    nets = {name: net_of(name) for name in zoo_names}
    in_docs = docs_table.read_table(docs_table.PATH.read_text(encoding="utf-8"))
    assert in_docs.keys() == suite.BY_NAME.keys(), "run scripts/conformance_table.py"
    for technique, reasons in suite.applicability(nets, techniques):
        assert in_docs[technique.name] == reasons, "run scripts/conformance_table.py"


def test_table_in_the_docs_is_read_as_it_is_written(suite, docs_table):
    written = [(t, {"plain": "", "a_net": f"no {t.name}"}) for t in suite.TECHNIQUES[:3]]
    table = docs_table.applicability_table(written)
    assert docs_table.read_table(table) == {t.name: reasons for t, reasons in written}
