import argparse
import ctypes

parser = argparse.ArgumentParser()
parser.add_argument("--library")
ctypes.CDLL(parser.parse_args().library)
