import numpy as np

print(np.float(0.5))
