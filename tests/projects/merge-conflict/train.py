<<<<<<< HEAD
rate = 0.1
=======
rate = 0.2
>>>>>>> other
print(rate)
