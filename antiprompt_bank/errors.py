"""What can go wrong with a bank, as far as a caller would act differently on it."""


class BankError(Exception):
    """Base of every error this library raises on purpose (programmer mistakes stay built-in errors)."""


class BankNotFound(BankError):
    """There is no bank, or no such version, at the place named."""


class BankCorrupt(BankError):
    """A version's files do not have the hashes its manifest states, or do not fit together."""


class EncoderMismatch(BankError):
    """The vectors at hand come from another encoder than the one in use: re-embed the bank."""


class EncoderUnavailable(BankError):
    """The encoder cannot be loaded or exported here; the message says which extra to install."""
