"""What stops the local stack: one line that says what to do."""

from schemas.errors import Permanent, Transient


class StackError(Permanent):
    """The stack cannot start or go on. The message is one line for an operator: what is wrong, what to do."""


class NotReady(Transient):
    """A server does not answer as it should yet."""
