from .helpers import RATE

print(RATE)
