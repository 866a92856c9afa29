import pytest

from autocompress.errors import InputError
from autocompress.measurement import Measurement
from autocompress.objective import OBJECTIVES, parse_objectives


def test_parse_objectives_keeps_the_order_given():
    assert [o.name for o in parse_objectives("latency, accuracy")] == ["latency", "accuracy"]
    assert parse_objectives(["accuracy", "size"]) == parse_objectives("accuracy,size")


def test_objectives_name_fields_of_a_measurement():
    assert {o.field for o in OBJECTIVES.values()} <= set(Measurement.__dataclass_fields__)
    assert OBJECTIVES["accuracy"].direction == "maximize"
    assert OBJECTIVES["size"].direction == OBJECTIVES["latency"].direction == "minimize"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("accuracy,sise", "Unknown objective 'sise'. Did you mean 'size'?"),
        ("", "Unknown objective ''."),
        ("accuracy,size,size", "named once, but got 'accuracy,size,size'"),
        ("size,latency", "must hold accuracy and a cost, but got 'size,latency'"),
        ("accuracy", "must hold accuracy and a cost, but got 'accuracy'"),
    ],
)
def test_parse_objectives_refuses_what_spans_no_front(names, message):
    with pytest.raises(InputError) as caught:
        parse_objectives(names)
    assert message in str(caught.value)
