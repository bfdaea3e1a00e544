from data import ROWS


class Net:
    rows = ROWS
