"""Load a task in a process of its own and print what identifies it.

    echo '{"spec": "digits", "arguments": {}}' | \
        python -m autocompress.evaluate.check.second_process
"""

import hashlib
import json
import os
import sys

from torch import Tensor

from autocompress.analysis.fingerprint import state_fingerprint
from autocompress.errors import AutocompressError
from autocompress.tasks.factory import load_task
from autocompress.tasks.prepare import PreparedTask, prepare_task


def describe_task(prepared: PreparedTask) -> dict[str, dict[str, str]]:
    """What a task is made of, by digest: `model` tensor by tensor, `train` and `val`."""
    model = prepared.task.model
    tensors: dict[str, Tensor] = model.state_dict()
    structure = hashlib.sha256(str(model).encode()).hexdigest()
    return {
        "model": {
            "its structure": structure,
            **{name: state_fingerprint({name: tensor}) for name, tensor in tensors.items()},
        },
        "train": {"all": prepared.train.fingerprint()},
        "val": {"all": prepared.val.fingerprint()},
    }


def main() -> int:
    """Read a spec from stdin; what the user's code prints goes to stderr."""
    asked = json.load(sys.stdin)
    answer = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        told = describe_task(prepare_task(load_task(asked["spec"], asked["arguments"])))
    except AutocompressError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    os.write(answer, f"{json.dumps(told)}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
