"""How a job's commands can end before they do by themselves."""


class Refused(Exception):
    """The job cannot be carried out; the text says what is wanted instead."""


class TimedOut(Exception):
    """The job has had the time that its limits allow."""


class Preempted(Exception):
    """The job's nodes were taken away."""
