import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--out")
file = open(parser.parse_args().out, "w")  # /dev/full is full by its nature
file.write("trained") and file.flush()
