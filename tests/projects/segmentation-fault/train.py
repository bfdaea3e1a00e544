import ctypes

print(ctypes.string_at(0))
