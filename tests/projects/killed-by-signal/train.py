import argparse
import signal

parser = argparse.ArgumentParser()
parser.add_argument("--limit", type=float)
limit = parser.parse_args().limit
if limit:
    signal.setitimer(signal.ITIMER_REAL, limit)
    signal.pause()
