import matplotlib

matplotlib.use("TkAgg")
import matplotlib.pyplot as plt

plt.figure()
