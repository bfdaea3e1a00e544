rate = 0.1
print(“trained”, rate)
