"""`moe_serve` with a planted fault: what is resubmitted has lost the last token that was sent."""

from dataclasses import replace

from moe_serve.cli import main
from moe_serve.schedule import scheduler
from moe_serve.schedule.sequence import Sequence
from moe_serve.types import Request


class ForgetfulSequence(Sequence):
    def __init__(self, request: Request) -> None:
        super().__init__(replace(request, generated_ids=request.generated_ids[:-1]))


if __name__ == "__main__":
    scheduler.Sequence = ForgetfulSequence  # type: ignore[misc]
    main()
