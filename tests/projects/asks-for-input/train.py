rows = input("How many rows? ")
print(rows)
