"""Prompts handed over between ranks that share attention: `mpirun -n 4 sharing_rank.py CASES`.

CASES is a JSON file, a list of what sharing_runs.py calls a case; rank 0 prints the list of answers
as one line of JSON.
"""

import json
import sys
import traceback
from pathlib import Path

import torch
from sharing_runs import hand_over

from moe_serve.bring_up import meet
from moe_serve.config.load import load_config
from moe_serve.control.meeting.world import launched_world


def main() -> None:
    torch.set_num_threads(1)
    cases = json.loads(Path(sys.argv[1]).read_text())
    launch = launched_world()
    meeting = meet(load_config(Path(cases[0]["config"])), launch)
    try:
        answers = [hand_over(case, meeting) for case in cases]
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        # The others wait for this one.
        from mpi4py import MPI

        MPI.COMM_WORLD.Abort(1)
    if launch.rank == 0:
        print(json.dumps(answers), flush=True)
    meeting.close()


if __name__ == "__main__":
    main()
