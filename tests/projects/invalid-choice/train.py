import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--mode", choices=["fast", "slow"])
print(parser.parse_args().mode)
