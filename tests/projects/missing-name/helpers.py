def load_row():
    return 1
