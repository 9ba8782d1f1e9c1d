"""The errors a user can meet; each says what, how much, and what to do.

MoeServeError
|-- ConfigError          the config file or the command line        exit 2
|-- CheckpointError      a missing, misshapen or truncated tensor   exit 2
|-- UnsupportedError     a model or feature that does not exist     exit 2
|-- PlacementError       what does not fit                          exit 2
|-- TakenNameError       a name that a served model has           HTTP 409
|-- LeavingModelError    a model that is being unloaded           HTTP 409
|-- LedgerError          memory that is promised to others        exit 2, or HTTP 4xx
|-- BringUpError         ranks that cannot form one world           exit 2
|   `-- AgreedError      the same on every rank                     exit 2
|-- RequestError         a request that cannot be served            HTTP 4xx
|   |-- OverloadedError  no room in the queue                       HTTP 429
|   |-- UnknownModelError  no served model has the name             HTTP 404
|   `-- those of HTTP    see `edge/errors.py`                       HTTP 4xx
|-- RankError            a rank failed, and nobody foresaw how    HTTP 500
|-- NotReadyError        starting or draining; `edge/errors.py`     HTTP 503
`-- EngineDeadError      a rank is gone                             HTTP 503
"""

from errno import ENOMEM


class MoeServeError(Exception):
    """Base of every error that is the user's to read rather than ours to debug."""


class ConfigError(MoeServeError):
    """The config names an unknown key, a wrong value or a missing file."""


class CheckpointError(MoeServeError):
    """A checkpoint cannot be read as its config promises."""


class UnsupportedError(MoeServeError):
    """A model, weight format or feature that this version does not have."""


class PlacementError(MoeServeError):
    """A plan that does not fit the devices it names."""


class TakenNameError(MoeServeError):
    """A model is to come under the name of one that is served."""


class LeavingModelError(MoeServeError):
    """A model that is being unloaded is to be changed."""


class LedgerError(MoeServeError):
    """More memory of a rank than others leave, or less than is in use."""


class BringUpError(MoeServeError):
    """The ranks that were started cannot form the world that the config describes."""


class AgreedError(BringUpError):
    """Why the ranks cannot go on, raised by all of them in the same words."""


class RequestError(MoeServeError):
    """A request that can never be served as it is.

    Args:
        message: what, how much, what to do.
        parameter: the request field at fault, as OpenAI's `param`.
    """

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownModelError(RequestError):
    """No served model has the name that the request gives."""


class OverloadedError(RequestError):
    """All the requests that may be held are; the same request may succeed later."""


class RankError(MoeServeError):
    """A rank could not change who it serves, for a reason that only its log explains."""


class EngineDeadError(MoeServeError):
    """A rank that held the request is gone."""


def is_out_of_memory(failure: BaseException) -> bool:
    """Torch tells it by a RuntimeError: a kind of its own on accelerators, by words on a CPU."""
    words = f"{failure}".lower()
    return (
        isinstance(failure, MemoryError)
        or type(failure).__name__ == "OutOfMemoryError"
        or (isinstance(failure, OSError) and failure.errno == ENOMEM)
        or (isinstance(failure, RuntimeError) and "can't allocate memory" in words)
    )
