"""The process of a worker: one question a line on standard input, one answer a line on what was standard output.

``python -m converter.fleets.worker FOLDER`` is that process; ``pool`` starts it. The folder is for its temporary files.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading

_ORPHANED = 1


def main() -> None:
    """Answers until standard input ends. That means that its driver has ended, so this process ends too, whatever it is doing.

    A driver that was killed has not removed the temporary files, so they go first.
    """
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    asked = sys.stdin.buffer

    def read() -> None:
        while line := asked.readline():
            questions.put(line)
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        os._exit(_ORPHANED)

    threading.Thread(target=read, daemon=True).start()
    from converter.fleets.carrying_out import carry_out
    from converter.parity.runners.kept import Models

    with Models() as models:
        while True:
            answer = carry_out(json.loads(questions.get()), models)
            answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
