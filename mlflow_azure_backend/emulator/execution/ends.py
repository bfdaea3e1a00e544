"""How a job can end before its command does."""


class Refused(Exception):
    """The job cannot be carried out; the text says what is wanted instead."""


class TimedOut(Exception):
    """The job has had the time that its limits allow."""
