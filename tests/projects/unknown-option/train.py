import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--learning-rate", type=float)
print(parser.parse_args().learning_rate)
