from autocompress.report.front_figure import along_steps, place_labels


def test_place_labels_puts_a_lonely_label_below_and_right() -> None:
    assert place_labels(["name"], [(0.5, 0.5)], [(0.5, 0.5)]) == ["bottom right"]


def test_place_labels_moves_away_from_the_border() -> None:
    assert place_labels(["a long name here"], [(0.99, 0.5)], []) == ["bottom left"]


def test_place_labels_gives_up_where_every_side_is_taken() -> None:
    crowd = [(0.3 + i / 100, 0.3 + j / 50) for i in range(40) for j in range(20)]
    assert place_labels(["a name"], [(0.5, 0.5)], crowd) == [None]


def test_place_labels_does_not_put_two_on_the_same_side_of_one_point() -> None:
    places = place_labels(["first", "second"], [(0.5, 0.5)] * 2, [])
    assert len(set(places)) == 2
    assert None not in places


def test_along_steps_goes_right_before_it_goes_up() -> None:
    points = along_steps([(0.1, 0.2), (0.5, 0.6)])
    assert points[0] == (0.1, 0.2)
    assert all(y == 0.2 or x == 0.5 for x, y in points)
    assert any(y > 0.2 for _, y in points)


def test_along_steps_of_one_point_is_empty() -> None:
    assert along_steps([(0.1, 0.2)]) == []
