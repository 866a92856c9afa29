"""File sizes that the full recipe reaches, and the gain of its parts. Resumable.

    python benchmarks/packed_size.py train --data FOLDER --work FOLDER [--only NAME ...]
    python benchmarks/packed_size.py train --data FOLDER --work FOLDER --depth 56
    python benchmarks/packed_size.py train --data FOLDER --work FOLDER --teacher-depth 56
    python benchmarks/packed_size.py coders --data FOLDER
    python benchmarks/packed_size.py tables --work FOLDER
    python benchmarks/packed_size.py figure

`--data` is a folder with cifar-10-batches-bin and weights of a ResNet-20 or -56. Each point is one
plan for all layers, trained by `autocompress refine`'s recipe for the same number of epochs; an
interrupted training continues after its last whole epoch. Bytes are those of the packed file,
accuracies those of the int8 ONNX file unpacked from it; the epoch is chosen on the val half of the
10,000 held-out images, and the test half is scored once. `tables` writes what is there to
`results/`; so does `coders`, which trains nothing and compares our coder with others on the codes
of uniform bits; `figure` draws docs/img/packed-size.svg.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from packed.points import POINTS
from packed.tables import read_table, write_coders, write_tables
from packed.train import compare_coders, train_points
from published import result_path

_NEEDED = {
    "train": ("data", "work"),
    "coders": ("data",),
    "tables": ("work",),
    "figure": (),
}
_FIGURE = Path(__file__).parents[1] / "docs" / "img" / "packed-size.svg"


def main() -> int:
    """Train points, or write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(_NEEDED))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--depth", type=int, choices=[20, 56], default=20)
    parser.add_argument("--teacher-depth", type=int, choices=[56])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(POINTS), default=list(POINTS))
    arguments = parser.parse_args()
    for name in _NEEDED[arguments.part]:
        if getattr(arguments, name) is None:
            parser.error(f"{arguments.part} needs --{name}")
    if arguments.part == "tables":
        write_tables(arguments.work)
        return 0
    if arguments.part == "figure":
        # here, since nothing else needs the package that draws
        from packed.figure import write_figure

        write_figure(read_table(result_path("packed-size", "csv")), _FIGURE)
        return 0
    if arguments.part == "coders":
        write_coders(compare_coders(arguments.data, arguments.depth, arguments.threads))
        return 0
    train_points(
        arguments.data,
        arguments.work,
        names=arguments.only,
        depth=arguments.depth,
        teacher_depth=arguments.teacher_depth,
        epochs=arguments.epochs,
        threads=arguments.threads,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
