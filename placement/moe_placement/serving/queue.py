"""How long clients of a closed loop wait for a server that they share."""


def loop_wait(clients: float, slot: float, elsewhere: float) -> float:
    """Mean seconds before a request's turn at one server of constant service.

    Mean-value analysis (Reiser and Lavenberg, 1980) in Schweitzer's approximation: a request
    that comes finds what the others have there, `rate * waiting` in the queue and half a service
    under way, with `rate = clients / (elsewhere + waiting)`; this is that equation solved.

    Args:
        slot: seconds of one service.
        elsewhere: seconds of the loop besides the wait.
    """
    others = (clients - 1 + abs(clients - 1)) / 2
    slack = elsewhere - others * slot
    wait: float = ((slack**2 + 2 * others * slot**2) ** 0.5 - slack) / 2
    return wait
